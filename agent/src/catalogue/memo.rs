//! Remembers what the latest requests were for: most requests of a server repeat a few paths.
//!
//! A route depends on nothing but the server's entry and the parts of the request, which are the key.
//! Does not depend on: how a route is found.

use std::hash::{Hash as _, Hasher as _};

use rustc_hash::{FxHashMap, FxHasher};

use crate::{
    catalogue::{RequestInfo, route::Route},
    identity::Server,
    protocol::grpc::ModelName,
};

/// Routes that are kept; beyond it, all are forgotten.
const KEPT: usize = 256;
/// Longest target that is kept, bytes.
const TARGET_CAP: usize = 512;

/// The latest routes, by a hash of what they depend on. A client that finds two targets with one hash gains nothing: each
/// replaces the other, and none takes the other's route.
#[derive(Debug, Default)]
pub struct RouteMemo(FxHashMap<u64, (Key, Route)>);

#[derive(Debug)]
struct Key {
    entry: usize,
    is_internal: bool,
    method: String,
    target: String,
    flags: [bool; 3],
    user_agent: Option<String>,
    named: Option<ModelName>,
}

impl RouteMemo {
    /// Returns the route of a request to `server`; `find` finds it if it is not known.
    pub fn route(
        &mut self,
        server: &Server,
        request: RequestInfo<'_>,
        find: impl FnOnce() -> Route,
    ) -> Route {
        if request.target.len() > TARGET_CAP {
            return find();
        }
        let hash = hash_of(server, &request);
        if let Some((key, route)) = self.0.get(&hash)
            && key.is_of(server, &request)
        {
            return route.clone();
        }
        let route = find();
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        self.0
            .insert(hash, (Key::of(server, &request), route.clone()));
        route
    }
}

/// Address of the server's entry, which lives as long as the catalogue; 0 without one.
fn entry_of(server: &Server) -> usize {
    server
        .entry
        .as_deref()
        .map_or(0, |entry| std::ptr::from_ref(entry).addr())
}

const fn flags_of(request: &RequestInfo<'_>) -> [bool; 3] {
    [request.is_grpc, request.is_upgraded, request.on_unix]
}

fn hash_of(server: &Server, request: &RequestInfo<'_>) -> u64 {
    let mut hasher = FxHasher::default();
    let named = request.named.map(|named| (&named.model, &named.version));
    (entry_of(server), server.is_internal, flags_of(request)).hash(&mut hasher);
    (request.method, request.target, request.user_agent, named).hash(&mut hasher);
    hasher.finish()
}

impl Key {
    fn of(server: &Server, request: &RequestInfo<'_>) -> Self {
        Self {
            entry: entry_of(server),
            is_internal: server.is_internal,
            method: request.method.to_owned(),
            target: request.target.to_owned(),
            flags: flags_of(request),
            user_agent: request.user_agent.map(str::to_owned),
            named: request.named.cloned(),
        }
    }

    fn is_of(&self, server: &Server, request: &RequestInfo<'_>) -> bool {
        self.entry == entry_of(server)
            && self.is_internal == server.is_internal
            && self.method == request.method
            && self.target == request.target
            && self.flags == flags_of(request)
            && self.user_agent.as_deref() == request.user_agent
            && self.named.as_ref() == request.named
    }
}

#[cfg(test)]
mod tests {
    use crate::{catalogue::route::Purpose, identity::fixtures, protocol::grpc::NamedBy};

    use super::*;

    fn server(is_internal: bool) -> Server {
        Server {
            is_internal,
            is_named: false,
            ..fixtures::server()
        }
    }

    fn request(target: &str) -> RequestInfo<'_> {
        RequestInfo {
            method: "POST",
            target,
            is_grpc: false,
            is_upgraded: false,
            on_unix: false,
            user_agent: None,
            named: None,
        }
    }

    #[test]
    fn each_part_of_a_request_has_its_own_route() {
        let named = ModelName {
            by: NamedBy::Body,
            model: "m".into(),
            version: None,
        };
        let plain = request("/a");
        let requests = [
            plain,
            request("/b"),
            RequestInfo {
                method: "GET",
                ..plain
            },
            RequestInfo {
                is_grpc: true,
                ..plain
            },
            RequestInfo {
                is_upgraded: true,
                ..plain
            },
            RequestInfo {
                on_unix: true,
                ..plain
            },
            RequestInfo {
                user_agent: Some("kube-probe/1"),
                ..plain
            },
            RequestInfo {
                named: Some(&named),
                ..plain
            },
        ];
        let mut memo = RouteMemo::default();
        for is_internal in [false, true] {
            for request in requests {
                let mut found = 0;
                for _ in 0..2 {
                    memo.route(&server(is_internal), request, || {
                        found += 1;
                        Route::of(Purpose::Inference)
                    });
                }
                assert_eq!(found, 1, "{request:?}");
            }
        }
    }

    #[test]
    fn routes_are_bounded() {
        let mut memo = RouteMemo::default();
        for number in 0..3 * KEPT {
            let target = format!("/{number}");
            memo.route(&server(false), request(&target), || {
                Route::of(Purpose::Admin)
            });
            assert!(memo.0.len() <= KEPT);
        }
        let long = "/".repeat(TARGET_CAP + 1);
        for _ in 0..2 {
            let mut found = false;
            memo.route(&server(false), request(&long), || {
                found = true;
                Route::of(Purpose::Admin)
            });
            assert!(found);
        }
    }
}
