//! Who is calling, as far as headers and connection say it. Whether a bearer secret is worth
//! anything is `flow`'s to say.

use axum::http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use dayfly_domain::{Reason, Secret};

use super::Peer;
use crate::flow::{Caller, Flow, Presented, Refused, Shown};

/// The caller of a route that needs one. A sender-constrained scheme is refused: part 1 cannot
/// check its proof.
pub(super) async fn caller(flow: &Flow, parts: &Parts) -> Result<Caller, Refused> {
    no_proof(&parts.headers)?;
    match Standing::of(&parts.headers, parts.extensions.get()) {
        Standing::Local { uid } => Ok(Caller::Operator { uid }),
        Standing::Bearer(secret) => flow.caller(&Shown { secret, bound: false, possession: None }).await,
        Standing::Nobody => Ok(Caller::Nobody),
        Standing::Dpop => Err(Reason::Dpop.into()),
    }
}

/// A proof of possession is refused wherever one is sent: unchecked, it would promise a binding
/// that is not there.
pub(super) fn no_proof(headers: &HeaderMap) -> Result<(), Refused> {
    if headers.contains_key("dpop") { Err(Reason::Dpop.into()) } else { Ok(()) }
}

/// What a request brings to be recognised by.
#[derive(Debug)]
enum Standing {
    Local { uid: u32 },
    Bearer(Presented),
    Dpop,
    Nobody,
}

impl Standing {
    // SECURITY: whoever sends credentials is judged by these alone, so a garbled header never
    // falls back to the socket's rights; t_074_a_garbled_header_never_falls_back_to_the_socket
    fn of(headers: &HeaderMap, peer: Option<&Peer>) -> Self {
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        match (sent.next(), sent.next(), peer) {
            (None, _, Some(&Peer::Local { uid })) => Self::Local { uid },
            (None, _, Some(Peer::Tcp(_)) | None) | (Some(_), Some(_), _) => Self::Nobody,
            (Some(value), None, _) => value.to_str().map_or(Self::Nobody, Self::of_header),
        }
    }

    fn of_header(value: &str) -> Self {
        let (scheme, secret) = value.split_once(' ').unwrap_or((value, ""));
        let secret = secret.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("dpop") {
            return Self::Dpop;
        }
        let whole = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        if scheme.eq_ignore_ascii_case("bearer") && whole {
            return Self::Bearer(Secret::new(secret.to_owned()));
        }
        Self::Nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: Option<&Peer> = Some(&Peer::Local { uid: 1000 });

    fn sent(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn the_local_socket_is_the_operator() {
        assert!(matches!(Standing::of(&sent(&[]), SOCKET), Standing::Local { uid: 1000 }));
    }

    #[test]
    fn without_the_socket_nobody_is_anybody() {
        let tcp = Peer::Tcp("127.0.0.1:1".parse().unwrap());
        assert!(matches!(Standing::of(&sent(&[]), Some(&tcp)), Standing::Nobody));
        assert!(matches!(Standing::of(&sent(&[]), None), Standing::Nobody));
    }

    #[test]
    fn a_bearer_is_judged_by_its_secret_on_the_socket_too() {
        for header in ["Bearer dtc_x", "bearer dtc_x", "BEARER  dtc_x"] {
            let Standing::Bearer(secret) = Standing::of(&sent(&[header]), SOCKET) else { panic!("{header}") };
            assert_eq!(secret.expose(), "dtc_x");
        }
    }

    #[test]
    fn t_074_a_garbled_header_never_falls_back_to_the_socket() {
        for header in ["", "Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Basic YTpi", "dtc_x", "Bearer\tx"] {
            assert!(matches!(Standing::of(&sent(&[header]), SOCKET), Standing::Nobody), "{header}");
        }
        assert!(matches!(Standing::of(&sent(&["Bearer a", "Bearer a"]), SOCKET), Standing::Nobody));
        assert!(matches!(Standing::of(&sent(&["DPoP a", "Bearer a"]), SOCKET), Standing::Nobody));
    }

    #[test]
    fn a_proof_that_cannot_be_checked_is_no_bearer() {
        assert!(matches!(Standing::of(&sent(&["DPoP a"]), SOCKET), Standing::Dpop));
        assert!(matches!(Standing::of(&sent(&["dpop"]), None), Standing::Dpop));
    }
}
