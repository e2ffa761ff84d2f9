//! Reads the catalogue's TOML: `servers.toml` and the `[[server]]` entries of a configuration file, as written.
//!
//! `entry` and `rules` check what is read here.
//! Does not depend on: the meaning of patterns.

use serde::Deserialize;

use crate::{
    catalogue::command::ArgumentSyntax,
    usage::{UsageError, invalid},
};

/// One `[[server]]`, as written. `None`: the key is left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileServer {
    /// Label `server`.
    pub name: String,
    /// Name of the built-in entry that completes this one.
    pub like: Option<String>,
    /// Patterns of the command lines of processes that clients send requests to.
    pub process: Option<Vec<String>>,
    /// Patterns of the command lines of workers that speak TorchServe's worker protocol.
    pub worker_process: Option<Vec<String>>,
    /// Patterns of the command lines of processes that receive only internal requests.
    #[serde(alias = "inner_process")]
    pub internal_process: Option<Vec<String>>,
    /// Whether every request to children of `process` is internal.
    #[serde(alias = "inner_children")]
    pub internal_children: Option<bool>,
    /// Whether every request on a unix socket is internal.
    #[serde(alias = "inner_unix")]
    pub internal_unix: Option<bool>,
    /// Whether children that Python's `multiprocessing` starts anew serve as their parent does.
    pub spawned: Option<bool>,
    /// Options whose value names the model, best first.
    pub model_options: Option<Vec<String>>,
    /// How to find the argument that names the model, the `ARGUMENT` of `model_options`.
    pub model_argument: Option<ArgumentSyntax>,
    /// Option whose value is a YAML file with more options, which those of the command line override.
    pub config_option: Option<String>,
    /// Pattern with one group, the model, for the command line.
    pub model_pattern: Option<String>,
    /// Whether the path is percent-decoded before it is split.
    pub decodes_first: Option<bool>,
    /// Purpose of requests that no pattern matches.
    #[serde(rename = "rest")]
    pub fallback: Option<Fallback>,
    /// Names of the APIs that it offers; its own patterns come first.
    pub apis: Option<Vec<String>>,
    /// Beginnings of the `User-Agent` of probes, in place of those of the default rules.
    pub probe_agents: Option<Vec<String>>,
    /// Paths of inference requests.
    pub inference: Option<Vec<String>>,
    /// Paths of inference requests whose JSON body names the model.
    pub inference_by_body: Option<Vec<String>>,
    /// Paths that concern the server itself.
    pub admin: Option<Vec<String>>,
    /// Paths of internal requests.
    #[serde(alias = "inner")]
    pub internal: Option<Vec<String>>,
    /// gRPC methods of inference requests.
    pub grpc_inference: Option<Vec<String>>,
    /// gRPC methods that concern the server itself.
    pub grpc_admin: Option<Vec<String>>,
    /// gRPC methods of internal requests.
    #[serde(alias = "grpc_inner")]
    pub grpc_internal: Option<Vec<String>>,
    /// Command lines that `process` matches: `COMMAND LINE -> MODEL`, or without the arrow if none is named.
    #[serde(default)]
    pub examples: Vec<String>,
    /// Command lines that `worker_process` matches, in the same form.
    #[serde(default)]
    pub worker_examples: Vec<String>,
    /// Command lines that `internal_process` matches, in the same form.
    #[serde(default)]
    pub internal_examples: Vec<String>,
    /// Requests and their purpose: `METHOD PATH... -> PURPOSE [of MODEL [version VERSION]]`.
    #[serde(default)]
    pub request_examples: Vec<String>,
}

/// The catalogue's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileCatalogue {
    /// The inference APIs that several servers offer.
    pub api: Vec<FileApi>,
    /// The entries, in the order in which they are tried.
    pub server: Vec<FileServer>,
    /// Purposes of the requests to a server without an entry, and of those that its entry leaves open.
    pub default_rules: FileDefaultRules,
}

/// One `[[api]]`: paths that mean the same on every server that offers them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileApi {
    /// Name, for the `apis` of entries.
    pub name: String,
    /// Whether a request to one of its paths shows that a listener is an inference server.
    pub plain: bool,
    /// Whether the body names the model if the path does not.
    pub model_in_body: bool,
    /// Paths that ask for the next message of a conversation.
    pub chat: Vec<String>,
    /// Paths that ask for a text which continues a prompt.
    pub text_completion: Vec<String>,
    /// Paths that ask for vectors of texts.
    pub embeddings: Vec<String>,
    /// Paths that ask for content of any kind.
    pub generate_content: Vec<String>,
    /// Paths of other inference requests.
    pub inference: Vec<String>,
    /// Paths beside them that are not inference.
    pub admin: Vec<String>,
}

/// The `[default_rules]` of the catalogue's file; the keys mean what they mean in [`FileServer`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDefaultRules {
    /// Names of the APIs, in the order in which they are tried.
    pub apis: Vec<String>,
    /// Beginnings of the `User-Agent` of probes.
    pub probe_agents: Vec<String>,
    /// Paths that concern the server itself.
    pub admin: Vec<String>,
    /// gRPC methods that concern the server itself.
    pub grpc_admin: Vec<String>,
    /// gRPC methods of internal requests.
    pub grpc_internal: Vec<String>,
    /// Requests to a server without an entry, and their purpose.
    pub request_examples: Vec<String>,
}

/// Purpose of a request that no pattern of the entry matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// It concerns the server itself.
    Admin,
    /// The default rules decide.
    #[default]
    #[serde(alias = "guess")]
    DefaultRules,
}

impl FileServer {
    /// Completes the entry with what the entry of `known` that it is like says; examples stay its own.
    pub fn completed<'a>(
        mut self,
        mut known: impl Iterator<Item = &'a Self>,
    ) -> Result<Self, UsageError> {
        let Some(like) = self.like.take() else {
            return Ok(self);
        };
        let Some(base) = known.find(|entry| entry.name == like) else {
            let reason = "is not a built-in server; docs/servers.md lists them";
            return Err(invalid("server.like", &like, reason.into()));
        };
        let base = base.clone();
        macro_rules! complete {
            ($($key:ident)*) => { Self {
                $($key: self.$key.or(base.$key),)*
                ..self
            } };
        }
        Ok(complete!(
            worker_process internal_process internal_children internal_unix spawned model_options model_argument config_option model_pattern
            decodes_first fallback apis probe_agents inference inference_by_body admin internal grpc_inference grpc_admin grpc_internal
        ))
    }
}
