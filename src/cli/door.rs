//! Which broker, and who we are to it: an address with a token, or the socket on its machine.

use std::path::{Path, PathBuf};

use dayfly_domain::Secret;
use dayfly_verifier::TOKEN_MAX_BYTES;

use super::{
    api::{Api, Transport, WireError},
    args::DoorArgs,
    failure::{Exit, Failure},
    progress::Progress,
    proof::{self, Prover},
    session::Vars,
    settings,
};
use crate::{
    config::{SOCKET_NAME, STATE_DIR},
    sys::files,
};

/// A way to the broker, and the key that we prove there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    pub way: Way,
    pub dpop_key: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    Remote(String),
    Socket(PathBuf),
}

impl Door {
    /// `--addr` or `--state`, otherwise `DAYFLY_ADDR`, otherwise the socket of the settings' state
    /// folder. A socket must be there.
    pub fn find(args: &DoorArgs, vars: &Vars) -> Result<Self, Failure> {
        Ok(Self { way: Way::find(args, vars)?, dpop_key: proof::place(args, vars) })
    }

    /// The broker's issuer URL, where it is known before the broker is asked.
    pub fn audience(&self) -> Option<&str> {
        match &self.way {
            Way::Remote(addr) => Some(addr),
            Way::Socket(_) => None,
        }
    }

    /// Operators: a token over the network, the peer's credentials on the socket.
    pub fn operator(&self, vars: &Vars) -> Result<Api, Failure> {
        let bearer = match (&self.way, vars.get("DAYFLY_TOKEN_FILE")) {
            (Way::Socket(_), _) => None,
            (Way::Remote(_), Some(file)) => Some(secret_file(Path::new(&file), "the token file")?),
            (Way::Remote(_), None) => return Err(no_token()),
        };
        if self.dpop_key.is_none() && bearer.as_ref().is_some_and(|token| proof::is_bound(token.expose())) {
            return Err(no_key());
        }
        Ok(self.api(vars, bearer)?.telling(Progress::of(vars)))
    }

    /// Whoever this bearer is; `None` where the request itself says it.
    pub fn api(&self, vars: &Vars, bearer: Option<Secret<String>>) -> Result<Api, Failure> {
        let prover = self.dpop_key.as_deref().map(Prover::load).transpose()?;
        match &self.way {
            Way::Socket(path) => Ok(Api::new(Transport::socket(path.clone()), bearer).proving(prover, None)),
            Way::Remote(addr) => {
                let own = vars.get("DAYFLY_CA").or_else(|| vars.get("SSL_CERT_FILE"));
                let transport = transport(addr, own.as_deref()).map_err(|failure| {
                    failure.help("set DAYFLY_ADDR to the broker's issuer URL, as https://broker.example, and DAYFLY_CA to a PEM file")
                })?;
                // SECURITY: a proof names the broker that it is sent to, never what that calls itself
                // (mix-up, T-60); a_proof_names_the_broker_that_it_goes_to.
                Ok(Api::new(transport, bearer).proving(prover, Some(addr.clone())))
            }
        }
    }
}

impl Way {
    fn find(args: &DoorArgs, vars: &Vars) -> Result<Self, Failure> {
        let on_this_machine = args.state.is_some() || args.config.is_some();
        let from_vars = || vars.get("DAYFLY_ADDR").filter(|_| !on_this_machine);
        if let Some(addr) = args.addr.clone().or_else(from_vars) {
            return Ok(Self::Remote(addr.trim_end_matches('/').to_owned()));
        }
        let (dir, origin) = state_dir(args, vars)?;
        let socket = dir.join(SOCKET_NAME);
        if socket.exists() { Ok(Self::Socket(socket)) } else { Err(no_broker(&socket, &origin)) }
    }
}

/// A server of the public web, by the system's roots: `DAYFLY_CA` vouches for the broker only.
pub fn platform(base: &str, vars: &Vars) -> Result<Transport, Failure> {
    transport(base, vars.get("SSL_CERT_FILE").as_deref())
        .map_err(|failure| failure.help("check the platform's variables, and SSL_CERT_FILE where it is set"))
}

/// The text of a file that holds a token or a handle, without white space around it.
pub fn secret_file(path: &Path, what: &str) -> Result<Secret<String>, Failure> {
    let shown = path.display();
    let bytes = files::read_capped(path)
        .map_err(|error| Failure::usage(format!("{what} `{shown}` cannot be read")).because(error))?;
    secret_text(bytes, &format!("{what} `{shown}`"))
}

/// One token: not empty, no more than a broker takes, nothing but visible ASCII.
pub fn secret_text(bytes: Vec<u8>, what: &str) -> Result<Secret<String>, Failure> {
    // The bytes are a secret too, and are wiped with this.
    let bytes = Secret::new(bytes);
    let text = bytes.expose().trim_ascii();
    let wrong = |why: &str| Err(Failure::usage(format!("{what} {why}")));
    match std::str::from_utf8(text) {
        Ok("") => wrong("is empty"),
        Ok(text) if text.len() > TOKEN_MAX_BYTES => wrong("is larger than 16 KiB"),
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret::new(text.to_owned())),
        _ => wrong("is not one token"),
    }
}

/// `ca_file`: the only roots to trust; otherwise the system's.
fn transport(addr: &str, ca_file: Option<&str>) -> Result<Transport, Failure> {
    let ca_pem = ca_file.map(|file| {
        files::read_capped(Path::new(file))
            .map_err(|error| Failure::usage(format!("the CA file `{file}` cannot be read")).because(error))
    });
    Transport::https(addr, ca_pem.transpose()?)
        .map_err(|error: WireError| Failure::usage("the address or its CA cannot be used").because(error))
}

/// The folder, and how we came to it.
fn state_dir(args: &DoorArgs, vars: &Vars) -> Result<(PathBuf, String), Failure> {
    if let Some(dir) = &args.state {
        return Ok((dir.clone(), "from `--state`".to_owned()));
    }
    Ok(match settings::load(args.config.as_deref(), vars)? {
        Some((file, settings)) => (settings.state_dir, format!("`state_dir` of `{}`", file.display())),
        None => {
            let looked = settings::places(None, vars).usual;
            let looked: Vec<_> = looked.iter().map(|path| format!("`{}`", path.display())).collect();
            (STATE_DIR.into(), format!("the default `state_dir`: there are no settings in {}", looked.join(" or ")))
        }
    })
}

fn no_broker(socket: &Path, origin: &str) -> Failure {
    let what = "no broker to talk to: no address is given, and there is no socket";
    Failure::new(Exit::Unavailable, what)
        .because("neither `--addr` nor `DAYFLY_ADDR` is set or used")
        .because(format!("no socket at `{}` ({origin})", socket.display()))
        .help(
            "on the broker's machine: name its state folder with --state DIR, as the user it runs as\n        \
             from elsewhere: export DAYFLY_ADDR=https://broker.example DAYFLY_TOKEN_FILE=FILE",
        )
}

fn no_key() -> Failure {
    Failure::new(Exit::NotAuthenticated, "the operator's token is bound to a key, and no key is given")
        .help("name it with --dpop-key FILE, or export DAYFLY_DPOP_KEY=FILE: the key that `dayfly token` was given")
}

fn no_token() -> Failure {
    Failure::new(Exit::NotAuthenticated, "the broker at this address must be told who is calling")
        .because("`DAYFLY_TOKEN_FILE` is not set")
        .help(
            "export DAYFLY_TOKEN_FILE=FILE, a token for the broker itself, as `dayfly token --out FILE` writes one;\n        \
             or on the broker's machine use its socket: --state DIR",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: Option<&Path>, addr: Option<&str>) -> DoorArgs {
        DoorArgs { addr: addr.map(str::to_owned), state: state.map(Path::to_owned), ..DoorArgs::default() }
    }

    #[test]
    fn an_option_beats_a_variable_and_a_variable_beats_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(SOCKET_NAME);
        std::fs::write(&socket, "").unwrap();
        let vars = Vars::given(&[("DAYFLY_ADDR", "https://v.example/")]);
        let door = |way| Ok(Door { way, dpop_key: None });
        let remote = |url: &str| door(Way::Remote(url.to_owned()));
        assert_eq!(Door::find(&at(None, None), &vars), remote("https://v.example"));
        assert_eq!(Door::find(&at(None, Some("https://o.example")), &vars), remote("https://o.example"));
        assert_eq!(Door::find(&at(Some(dir.path()), None), &vars), door(Way::Socket(socket)));
    }

    #[test]
    fn without_address_and_socket_it_says_what_was_looked_for_and_how_to_set_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let failure = Door::find(&at(Some(dir.path()), None), &Vars::given(&[("HOME", home)])).unwrap_err();
        assert_eq!(failure.exit(), 69);
        let text = failure.text("error").replace(home, "HOME");
        insta::assert_snapshot!(text, @r"
        error: no broker to talk to: no address is given, and there is no socket
          cause: neither `--addr` nor `DAYFLY_ADDR` is set or used
          cause: no socket at `HOME/dayfly.sock` (from `--state`)
          help: on the broker's machine: name its state folder with --state DIR, as the user it runs as
                from elsewhere: export DAYFLY_ADDR=https://broker.example DAYFLY_TOKEN_FILE=FILE
        ");
    }

    #[test]
    fn an_address_without_a_token_is_not_authenticated() {
        let failure = at_b().operator(&Vars::given(&[])).unwrap_err();
        assert_eq!(failure.exit(), 4);
        assert!(failure.text("error").contains("DAYFLY_TOKEN_FILE"));
    }

    fn at_b() -> Door {
        Door { way: Way::Remote("https://b.example".to_owned()), dpop_key: None }
    }

    #[test]
    fn a_bound_token_without_its_key_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("op.token");
        std::fs::write(&file, "e30.eyJjbmYiOnsiamt0IjoieCJ9fQ.x").unwrap();
        let vars = Vars::given(&[("DAYFLY_TOKEN_FILE", file.to_str().unwrap())]);
        let failure = at_b().operator(&vars).unwrap_err();
        assert_eq!(failure.exit(), 4);
        assert!(failure.text("error").contains("--dpop-key"));
    }

    #[test]
    fn a_token_file_that_holds_no_token_is_refused_without_quoting_it() {
        for bad in [&b""[..], b" \n", b"a b", b"a\nb", b"\xff", "é".as_bytes(), &[b'a'; TOKEN_MAX_BYTES + 1]] {
            let failure = secret_text(bad.to_vec(), "the token file `f`").unwrap_err();
            assert!(failure.text("error").len() < 80, "{failure:?}");
        }
        assert_eq!(secret_text(b" eyJ.a-b_\n".to_vec(), "x").unwrap().expose(), "eyJ.a-b_");
    }
}
