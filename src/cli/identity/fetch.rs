//! From the place of a token to the token: files and variables are read, and whoever mints tokens
//! on demand is asked for one whose audience is the broker.

use std::io::Read;

use dayfly_domain::Secret;
use serde_json::{Map, Value};

use super::{Evidence, Source, github};
use crate::{
    cli::{
        api::encode,
        door,
        failure::{Exit, Failure},
        session::Vars,
    },
    sys::{
        net::{Answer, metadata},
        program::{self, ProgramError},
    },
};

const TOKEN_MAX_BYTES: u64 = 16 << 10;

impl Source {
    /// Reads what needs no audience.
    pub fn read(self) -> Result<Evidence, Failure> {
        let (token, origin) = match self {
            Self::File { path, origin } => (door::secret_file(&path, "the evidence file")?, origin),
            Self::Stdin => (stdin()?, "stdin"),
            Self::Variable { token, origin } => (token, origin),
            Self::GitHub { .. } | Self::Program { .. } | Self::Metadata(_) => {
                return Err(Failure::failed("the platform's token was not fetched"));
            }
        };
        Ok(Evidence { token, origin })
    }

    /// Asks whoever mints tokens on demand for one; reads what lies there already.
    pub async fn fetch(self, audience: &str, vars: &Vars) -> Result<Evidence, Failure> {
        match self {
            Self::GitHub { url, request_token } => github::fetch(&url, &request_token, audience, vars).await,
            Self::Program { origin, program, args } => {
                let path = vars.get("PATH").unwrap_or_default();
                let answer = program::answer(program, &args(audience), &path).await;
                let answer = answer.map_err(|error| no_answer(origin, &error))?;
                let token = token_of(answer.expose().clone(), &format!("what `{program}` wrote"));
                let token = token.map_err(|failure| failure.help(lines(origin)))?;
                Ok(Evidence { token, origin })
            }
            Self::Metadata(server) => server.fetch(audience).await,
            Self::File { .. } | Self::Stdin | Self::Variable { .. } => self.read(),
        }
    }
}

fn no_answer(origin: &str, error: &ProgramError) -> Failure {
    Failure::new(Exit::NotAuthenticated, format!("{origin} gave this job no identity token"))
        .because(error)
        .help(lines(origin))
}

/// What a job needs for the platform's own program to answer, to be pasted as it is.
fn lines(origin: &str) -> &'static str {
    match origin {
        "circleci" => {
            "pull requests from forks have a token only if the project passes secrets to them; older installations\n\
             give one only to jobs that have a context: add these lines to the job in its workflow\n\
             context:\n  - ANY-CONTEXT"
        }
        _ => {
            "the step needs the agent's program; one that runs in a container has it with these lines\n\
             plugins:\n  - docker:\n      mount-buildkite-agent: true"
        }
    }
}

/// What is not a token is none, whoever said it: nobody is authenticated.
pub(super) fn token_of(bytes: Vec<u8>, what: &str) -> Result<Secret<String>, Failure> {
    let not_usage = |failure: Failure| Failure::new(Exit::NotAuthenticated, failure.parts().what.clone());
    door::secret_text(bytes, what).map_err(not_usage)
}

fn stdin() -> Result<Secret<String>, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(TOKEN_MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::failed("stdin cannot be read").because(error))?;
    door::secret_text(bytes, "stdin")
}

/// The metadata server of a cloud: where it is, what it demands, and how it answers.
#[derive(Debug)]
pub struct Server {
    origin: &'static str,
    authority: String,
    /// Up to the audience.
    path: String,
    /// Behind it.
    tail: String,
    demanded: (&'static str, &'static str),
    /// The answer has the demanded header too, so nobody else answered.
    echoes: bool,
    /// The member of a JSON answer; otherwise all of it is the token.
    member: Option<&'static str>,
}

impl Server {
    pub fn google() -> Self {
        Self {
            origin: "google",
            authority: "metadata.google.internal".to_owned(),
            path: "/computeMetadata/v1/instance/service-accounts/default/identity?format=full&audience=".to_owned(),
            tail: String::new(),
            demanded: ("metadata-flavor", "Google"),
            echoes: true,
            member: None,
        }
    }

    /// `client_id`: which of the machine's identities, where it has several.
    pub fn azure(client_id: Option<String>) -> Self {
        Self {
            origin: "azure",
            authority: "169.254.169.254".to_owned(),
            path: "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=".to_owned(),
            tail: client_id.map(|id| format!("&client_id={}", encode(&id))).unwrap_or_default(),
            demanded: ("metadata", "true"),
            echoes: false,
            member: Some("access_token"),
        }
    }

    async fn fetch(self, audience: &str) -> Result<Evidence, Failure> {
        let path = format!("{}{}{}", self.path, encode(audience), self.tail);
        let answer = metadata(&self.authority, &path, self.demanded).await.map_err(|error| {
            Failure::new(Exit::Unavailable, format!("the metadata server of {} cannot be asked", self.origin))
                .because(error)
        })?;
        let token = self.token(answer)?;
        Ok(Evidence { token, origin: self.origin })
    }

    fn token(&self, answer: Answer) -> Result<Secret<String>, Failure> {
        let wrong = |what: String| Failure::new(Exit::NotAuthenticated, format!("the metadata server {what}"));
        let body = Secret::new(answer.body);
        let (name, value) = self.demanded;
        if self.echoes && answer.headers.get(name).is_none_or(|found| found != value) {
            return Err(wrong(format!("of {} did not answer: something else did", self.origin)));
        }
        if answer.status != 200 {
            let help = "give the machine an identity of its own, and check that it may have tokens for this audience";
            let what = format!("of {} refused a token with status {}", self.origin, answer.status);
            return Err(wrong(what).help(help));
        }
        let text = match self.member {
            None => Some(body.expose().clone()),
            Some(member) => match serde_json::from_slice::<Map<String, Value>>(body.expose()) {
                Ok(mut members) => match members.remove(member) {
                    Some(Value::String(text)) => Some(text.into_bytes()),
                    _ => None,
                },
                Err(_) => None,
            },
        };
        let text = text.ok_or_else(|| wrong(format!("of {} gave an answer without a token", self.origin)))?;
        token_of(text, "the metadata server's token")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::cli::identity::{Machine, Surroundings, find};

    /// Answers one request on loopback; gives back what was asked.
    async fn asked(make: fn() -> Server, answer: &str) -> (Result<Evidence, Failure>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { authority: listener.local_addr().unwrap().to_string(), ..make() };
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                seen.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(seen).unwrap()
        };
        let vars = Vars::given(&[]);
        tokio::join!(Source::Metadata(server).fetch("https://b.example/x", &vars), serve)
    }

    #[tokio::test]
    async fn an_agent_that_says_nothing_or_is_not_there_gives_the_lines_to_paste() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("buildkite-agent");
        let vars = Vars::given(&[("PATH", dir.path().to_str().unwrap())]);
        let source = |origin, program| Source::Program { origin, program, args: |_| Vec::new() };
        for said in ["", "  "] {
            fs::write(&agent, format!("#!/bin/sh\necho '{said}'\n")).unwrap();
            fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
            let failure = source("buildkite", "buildkite-agent").fetch("https://b.example", &vars).await.unwrap_err();
            assert_eq!(failure.exit(), 4);
            assert!(failure.text("error").contains("mount-buildkite-agent: true"), "{}", failure.text("error"));
        }
        let failure = source("circleci", "circleci").fetch("https://b.example", &vars).await.unwrap_err();
        assert_eq!(failure.exit(), 4);
        assert!(failure.text("error").contains("context:\n  - ANY-CONTEXT"), "{}", failure.text("error"));
    }

    #[tokio::test]
    async fn google_is_asked_for_the_broker_and_no_one_else_may_answer() {
        let good = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nContent-Length: 5\r\n\r\na.b.c";
        let (evidence, seen) = asked(Server::google, good).await;
        assert_eq!(evidence.unwrap().token.expose(), "a.b.c");
        let line = "GET /computeMetadata/v1/instance/service-accounts/default/identity?format=full&audience=https%3A%2F%2Fb.example%2Fx HTTP/1.1\r\n";
        assert!(seen.starts_with(line) && seen.contains("metadata-flavor: Google\r\n"), "{seen}");
        let other = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na.b.c";
        assert!(asked(Server::google, other).await.0.unwrap_err().text("error").contains("something else did"));
    }

    #[tokio::test]
    async fn azure_is_asked_for_one_of_its_identities() {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{\"access_token\":\"a.b.c\"}";
        let (evidence, seen) = asked(|| Server::azure(Some("id&x".to_owned())), good).await;
        assert_eq!(evidence.unwrap().token.expose(), "a.b.c");
        assert!(seen.contains("resource=https%3A%2F%2Fb.example%2Fx&client_id=id%26x HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains("metadata: true\r\n"), "{seen}");
    }

    #[tokio::test]
    async fn what_a_metadata_server_answers_is_not_quoted() {
        for body in ["{\"token\":\"eyJ\"}", "[\"eyJ\"]", "{\"access_token\":\"\"}", "eyJ"] {
            for status in [200, 400] {
                let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let failure = asked(|| Server::azure(None), &answer).await.0.unwrap_err();
                assert!(!failure.text("error").contains("eyJ"), "{failure:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_agent_on_the_path_is_asked_for_the_broker() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("buildkite-agent");
        fs::write(&agent, "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"${0%/*}/asked\"\necho a.b.c\n").unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
        let vars = Vars::given(&[("BUILDKITE", "true"), ("PATH", dir.path().to_str().unwrap())]);
        let machine = Machine::default();
        let around = Surroundings { vars: &vars, machine: &machine, audience: None };
        let evidence = find(None, &around).unwrap().fetch("https://b.example", &vars).await.unwrap();
        assert_eq!((evidence.token.expose().as_str(), evidence.origin), ("a.b.c", "buildkite"));
        let asked = fs::read_to_string(dir.path().join("asked")).unwrap();
        assert_eq!(
            asked,
            "oidc\nrequest-token\n--lifetime\n300\n--claim\norganization_id\n--claim\npipeline_id\n--audience\nhttps://b.example\n"
        );
    }

    #[tokio::test]
    async fn an_agent_that_says_no_or_talks_is_an_error() {
        for (text, part) in [("exit 1", "failed with"), ("echo two words", "is not one token"), ("true", "is empty")] {
            let dir = tempfile::tempdir().unwrap();
            let agent = dir.path().join("circleci");
            fs::write(&agent, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
            let vars = Vars::given(&[("CIRCLECI", "true"), ("PATH", dir.path().to_str().unwrap())]);
            let machine = Machine::default();
            let around = Surroundings { vars: &vars, machine: &machine, audience: None };
            let failure = find(None, &around).unwrap().fetch("https://b.example", &vars).await.unwrap_err();
            assert!(failure.text("error").contains(part), "{failure:?}");
        }
    }
}
