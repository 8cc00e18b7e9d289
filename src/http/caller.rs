//! Who is calling, as far as headers and connection say it. Whether a bearer secret is worth
//! anything is `flow`'s to say.

use axum::http::{HeaderMap, Method, header::AUTHORIZATION, request::Parts};
use dayfly_domain::Secret;

use super::{Client, Peer, proof};
use crate::flow::{Caller, Flow, Presented, Refused, Shown};

/// The caller of a route that needs one.
pub(super) async fn caller(flow: &Flow, parts: &Parts) -> Result<Caller, Refused> {
    let possession = proof::of(&parts.headers, method(parts), parts.uri.path())?;
    match Standing::of(&parts.headers, parts.extensions.get()) {
        Standing::Shown { secret, bound } => {
            let client = parts.extensions.get::<Client>().map(|Client(chain)| chain);
            flow.caller_over(&Shown { secret, bound, possession }, client).await
        }
        // A proof binds the secret that it comes with; alone it would promise what is not there.
        Standing::Local { .. } | Standing::Nobody if possession.is_some() => {
            Err(proof::refused("a proof goes with a token or a handle in `Authorization`"))
        }
        Standing::Local { uid } => Ok(Caller::Operator { uid }),
        Standing::Nobody => Ok(Caller::Nobody),
    }
}

/// As the table of routes knows them; a proof for any other has no route to be for.
fn method(parts: &Parts) -> &'static str {
    match parts.method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "",
    }
}

/// What a request brings to be recognised by.
#[derive(Debug)]
enum Standing {
    Local {
        uid: u32,
    },
    /// `bound`: with the scheme `DPoP`, otherwise `Bearer`.
    Shown {
        secret: Presented,
        bound: bool,
    },
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
        let whole = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        let bound = scheme.eq_ignore_ascii_case("dpop");
        if whole && (bound || scheme.eq_ignore_ascii_case("bearer")) {
            return Self::Shown { secret: Secret::new(secret.to_owned()), bound };
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
            let Standing::Shown { secret, bound: false } = Standing::of(&sent(&[header]), SOCKET) else {
                panic!("{header}")
            };
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
    fn the_scheme_of_a_bound_secret_is_no_bearer() {
        for header in ["DPoP dtc_x", "dpop dtc_x", "DPOP  dtc_x"] {
            assert!(matches!(Standing::of(&sent(&[header]), SOCKET), Standing::Shown { bound: true, .. }), "{header}");
        }
        for header in ["DPoP", "DPoP ", "DPoP a b", "DPoPdtc_x"] {
            assert!(matches!(Standing::of(&sent(&[header]), SOCKET), Standing::Nobody), "{header}");
        }
    }
}
