//! Who we are, found by itself: an explicit file or variable, then the platform's own way. The
//! first that fires is taken; a platform that is recognised but gives no token is an error, never
//! a reason to try the next. Variables, files of the machine and the broker's name come in; the
//! place of a token, and then the token, goes out.
//!
//! [`probes`] tells what every probe saw, for people who ask why.

mod ci;
mod fetch;
mod github;
mod hosts;
mod machine;
mod mints;

use std::path::{Path, PathBuf};

use dayfly_domain::Secret;

pub use self::{machine::Machine, mints::minting};
use super::{
    door,
    failure::{Exit, Failure},
    session::Vars,
};

/// What the probes look at.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    pub vars: &'a Vars,
    pub machine: &'a Machine,
    /// The broker's issuer URL, where it is known before the broker is asked.
    pub audience: Option<&'a str>,
}

/// Where the evidence comes from.
#[derive(Debug)]
pub enum Source {
    /// Read anew each time: platforms replace such files.
    File {
        path: PathBuf,
        origin: &'static str,
    },
    Stdin,
    Variable {
        token: Secret<String>,
        origin: &'static str,
    },
    /// The runner mints a token for an audience, on demand.
    GitHub {
        url: String,
        request_token: Secret<String>,
    },
    /// The platform's own program does.
    Program {
        origin: &'static str,
        program: &'static str,
        args: fn(&str) -> Vec<String>,
    },
    /// The cloud's metadata server does.
    Metadata(fetch::Server),
}

/// The platform's token, and whose it is for people.
#[derive(Debug)]
pub struct Evidence {
    pub token: Secret<String>,
    /// `github`, `file`, ...
    pub origin: &'static str,
}

/// What a probe saw.
#[derive(Debug)]
pub enum Look {
    /// Not here; why it is thought so.
    Absent(String),
    /// Here; what showed it.
    Found(Source, String),
    /// Here, and there is no token.
    Unusable(Failure),
}

/// One way to be identified: data, and a function that looks and touches nothing.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    pub name: &'static str,
    look: fn(&Surroundings<'_>) -> Look,
}

/// What one probe came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    pub name: &'static str,
    /// It is this one that counts: also where the platform is recognised and gives no token.
    pub fired: bool,
    pub why: String,
}

/// In the order they are tried. CI comes before clouds, because runners are machines of clouds.
pub const PROBES: &[Probe] = &[
    Probe { name: "DAYFLY_ID_TOKEN", look: given_token },
    Probe { name: "DAYFLY_ID_TOKEN_FILE", look: given_file },
    Probe { name: "github", look: ci::github },
    Probe { name: "gitlab", look: ci::gitlab },
    Probe { name: "circleci", look: ci::circleci },
    Probe { name: "buildkite", look: ci::buildkite },
    Probe { name: "bitbucket", look: ci::bitbucket },
    Probe { name: "terraform", look: ci::terraform },
    Probe { name: "azure-devops", look: ci::azure_devops },
    Probe { name: "spiffe", look: hosts::spiffe },
    Probe { name: "kubernetes", look: hosts::kubernetes },
    Probe { name: "aws", look: hosts::aws },
    Probe { name: "google", look: hosts::google },
    Probe { name: "azure", look: hosts::azure },
];

/// Looks, and reads nothing yet.
pub fn find(evidence_file: Option<&Path>, around: &Surroundings<'_>) -> Result<Source, Failure> {
    if let Some(file) = evidence_file {
        return Ok(explicit(file));
    }
    for probe in PROBES {
        match (probe.look)(around) {
            Look::Absent(_) => {}
            Look::Found(source, _) => return Ok(source),
            Look::Unusable(failure) => return Err(failure),
        }
    }
    Err(nothing(&probes(None, around)))
}

/// What each probe saw, in order. One that comes after the one that fired is not looked at.
pub fn probes(evidence_file: Option<&Path>, around: &Surroundings<'_>) -> Vec<Probed> {
    const FILE: &str = "--evidence-file";
    let why = evidence_file.map_or_else(|| "is not given".to_owned(), |file| format!("is `{}`", file.display()));
    let mut fired = evidence_file.map(|_| FILE);
    let mut probed = vec![Probed { name: FILE, fired: fired.is_some(), why }];
    for probe in PROBES {
        let (hit, why) = match fired {
            Some(first) => (false, format!("not looked at: `{first}` comes first")),
            None => match (probe.look)(around) {
                Look::Absent(why) => (false, why),
                Look::Found(_, why) => (true, why),
                Look::Unusable(failure) => (true, unusable(&failure)),
            },
        };
        fired = fired.or(hit.then_some(probe.name));
        probed.push(Probed { name: probe.name, fired: hit, why });
    }
    probed
}

impl Source {
    /// Whether the token is made for an audience when it is asked for.
    pub fn wants_audience(&self) -> bool {
        matches!(self, Self::GitHub { .. } | Self::Program { .. } | Self::Metadata(_))
    }
}

fn explicit(file: &Path) -> Source {
    if file == Path::new("-") { Source::Stdin } else { Source::File { path: file.to_owned(), origin: "file" } }
}

fn given_token(around: &Surroundings<'_>) -> Look {
    const NAME: &str = "DAYFLY_ID_TOKEN";
    let Some(token) = around.vars.get(NAME) else { return Look::Absent(not_set(NAME)) };
    match door::secret_text(token.into_bytes(), "`DAYFLY_ID_TOKEN`") {
        Ok(token) => Look::Found(Source::Variable { token, origin: NAME }, is_set(NAME)),
        Err(failure) => Look::Unusable(
            failure.help("give it the platform's identity token, or unset it so that the platform is asked"),
        ),
    }
}

fn given_file(around: &Surroundings<'_>) -> Look {
    const NAME: &str = "DAYFLY_ID_TOKEN_FILE";
    match around.vars.get(NAME) {
        Some(file) => Look::Found(Source::File { path: file.into(), origin: "file" }, is_set(NAME)),
        None => Look::Absent(not_set(NAME)),
    }
}

fn not_set(name: &str) -> String {
    format!("`{name}` is not set")
}

fn is_set(name: &str) -> String {
    format!("`{name}` is set")
}

/// The broker's name where lines to paste need it.
fn shown_audience<'a>(around: &Surroundings<'a>) -> &'a str {
    around.audience.unwrap_or("https://broker.example.org")
}

/// A platform that is recognised and gives no token.
fn no_token(what: &str, why: String, help: String) -> Look {
    Look::Unusable(Failure::new(Exit::NotAuthenticated, what).because(why).help(help))
}

fn unusable(failure: &Failure) -> String {
    let parts = failure.parts();
    let causes: Vec<_> = std::iter::once(&parts.what).chain(&parts.causes).map(String::as_str).collect();
    causes.join(": ")
}

fn nothing(absent: &[Probed]) -> Failure {
    let platform = |probed: &&Probed| PROBES.iter().any(|probe| probe.name == probed.name) && !is_variable(probed);
    let (platforms, explicit): (Vec<_>, Vec<_>) = absent.iter().partition(platform);
    let failure = Failure::new(Exit::NotAuthenticated, "nothing here says who is asking");
    let failure = explicit.into_iter().fold(failure, |failure, probed| failure.because(said(probed)));
    let platforms: Vec<_> = platforms.into_iter().map(|probed| format!("{}: {}", probed.name, probed.why)).collect();
    failure
        .because(format!("no platform is recognised ({})", platforms.join("; ")))
        .help("give the platform's identity token: --evidence-file FILE, or - for stdin")
}

fn is_variable(probed: &Probed) -> bool {
    matches!(probed.name, "DAYFLY_ID_TOKEN" | "DAYFLY_ID_TOKEN_FILE")
}

fn said(probed: &Probed) -> String {
    if is_variable(probed) { probed.why.clone() } else { format!("`{}` {}", probed.name, probed.why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNER: [(&str, &str); 3] = [
        ("GITHUB_ACTIONS", "true"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://run.example/token?v=2"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "rt"),
    ];

    fn looked<T>(pairs: &[(&str, &str)], look: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let machine = Machine::default();
        look(&Surroundings { vars: &Vars::given(pairs), machine: &machine, audience: Some("https://b.example") })
    }

    fn probe(file: Option<&Path>, pairs: &[(&str, &str)]) -> Result<Source, Failure> {
        looked(pairs, |around| find(file, around))
    }

    #[test]
    fn what_is_explicit_comes_before_the_platform() {
        let mut pairs = RUNNER.to_vec();
        assert!(matches!(probe(None, &pairs), Ok(Source::GitHub { .. })));
        pairs.push(("DAYFLY_ID_TOKEN_FILE", "/f"));
        assert!(matches!(probe(None, &pairs), Ok(Source::File { .. })));
        pairs.push(("DAYFLY_ID_TOKEN", "a.b.c"));
        assert!(matches!(probe(None, &pairs), Ok(Source::Variable { .. })));
        assert!(matches!(probe(Some(Path::new("-")), &pairs), Ok(Source::Stdin)));
        assert!(matches!(probe(Some(Path::new("f")), &pairs), Ok(Source::File { .. })));
    }

    #[test]
    fn an_empty_token_variable_is_none_as_every_other() {
        let empty = ("DAYFLY_ID_TOKEN", "");
        assert!(matches!(probe(None, &[&RUNNER[..], &[empty]].concat()), Ok(Source::GitHub { .. })));
        assert_eq!(probe(None, &[empty]).unwrap_err().exit(), 4);
    }

    #[test]
    fn where_nothing_fires_each_probe_says_why() {
        let failure = probe(None, &[]).unwrap_err();
        assert_eq!((failure.exit(), failure.parts().causes.len()), (4, 4));
        let platforms = &failure.parts().causes[3];
        for probe in &PROBES[2..] {
            assert!(platforms.contains(&format!("{}: ", probe.name)), "{platforms}");
        }
    }

    #[test]
    fn every_probe_tells_what_it_saw_and_one_fires() {
        let told = looked(&RUNNER, |around| probes(None, around));
        assert_eq!(told.len(), PROBES.len() + 1);
        let fired: Vec<_> = told.iter().filter(|probed| probed.fired).map(|probed| probed.name).collect();
        assert_eq!(fired, ["github"]);
        assert_eq!(told[4].why, "not looked at: `github` comes first");
        let told = looked(&RUNNER[..1], |around| probes(None, around));
        assert!(told[3].fired && told[3].why.contains("`ACTIONS_ID_TOKEN_REQUEST_URL` is not set"), "{:?}", told[3]);
        let told = looked(&[], |around| probes(Some(Path::new("f")), around));
        assert!(told[0].fired && !told[1].fired);
        assert!(looked(&[], |around| probes(None, around)).iter().all(|probed| !probed.fired));
    }

    #[test]
    fn a_source_shows_no_secret() {
        let shown = format!("{:?}", probe(None, &RUNNER).unwrap());
        assert!(shown.contains("[redacted]") && !shown.contains("\"rt\""), "{shown}");
    }
}
