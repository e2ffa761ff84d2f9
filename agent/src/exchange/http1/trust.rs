//! Decides whether a response may be reported with the request that it seems to belong to.
//!
//! After reads or writes that no hook handled, a response may belong to a request that was not observed. Such pairs count
//! as unfinished, so that no value is wrong.
//! Does not depend on: how requests and responses are found.

use crate::exchange::{
    Peer, Request, Response,
    event::{Event, Sink, Unfinished, pair},
};

/// Exchanges after which pairs count again, if requests come one by one.
const DOUBTFUL: u32 = 16;

/// What is known of the pairs of one connection.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Whether a request was ever read before the response to an earlier one had ended.
    pub(super) pipelines: bool,
    /// Whether no response has begun since bytes were lost.
    pub(super) after_loss: bool,
    /// Exchanges to come of which it is not known which response belongs to which request.
    doubtful: u32,
}

impl Trust {
    /// Notes that requests or responses of unknown number were not observed.
    pub(super) fn lose(&mut self) {
        self.doubtful = DOUBTFUL;
    }

    /// Whether older requests without a response are dropped when a new one is read.
    pub(super) fn drops_older(&self) -> bool {
        self.doubtful > 0 && !self.pipelines
    }

    /// Reports a pair.
    pub(super) fn report(
        &mut self,
        peer: Peer,
        request: Option<Request>,
        response: Response,
        out: &mut dyn Sink,
    ) {
        if request.is_none() || self.doubtful == 0 {
            out.event(pair(peer, request, response));
            return;
        }
        // Which of several open requests a response belongs to stays unknown.
        if !self.pipelines {
            self.doubtful -= 1;
        }
        out.event(Event::Unfinished(Unfinished::Unobserved));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::fixtures::exchange;

    /// Reports exchanges until one counts, at most `most`; returns how many did not.
    fn doubted(trust: &mut Trust, most: u32) -> u32 {
        let pair = exchange();
        let mut doubted = 0;
        while doubted < most {
            let mut out = Vec::new();
            let (request, response) = (pair.request.clone(), pair.response.clone());
            trust.report(pair.peer, Some(request), response, &mut out);
            if out != [Event::Unfinished(Unfinished::Unobserved)] {
                break;
            }
            doubted += 1;
        }
        doubted
    }

    #[test]
    fn pairs_count_again_after_some_exchanges_one_by_one() {
        let mut trust = Trust::default();
        assert_eq!(doubted(&mut trust, 1), 0);
        trust.lose();
        assert_eq!(doubted(&mut trust, 100), DOUBTFUL);
        trust.pipelines = true;
        trust.lose();
        assert_eq!(doubted(&mut trust, 100), 100);
    }
}
