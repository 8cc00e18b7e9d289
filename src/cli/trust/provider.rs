//! What `trust add` knows of the platforms, as data: which ids bind, where ref and environment stand,
//! and the runs that a new row is tested with. Another platform is another entry.

use dayfly_domain::Reason;

/// A platform, named like its built-in profile.
#[derive(Debug)]
pub struct Provider {
    pub name: &'static str,
    /// Of the name that people give: `OWNER/REPO`.
    pub shape: &'static str,
    /// A name may have more than two parts.
    pub nested: bool,
    /// What binds: given by option, by look-up or by a refusal. An issuer may pin them; the row has the others.
    pub ids: &'static [Id],
    /// Pinned by an issuer's table that is made here.
    pub pin: Option<&'static str>,
    /// Claims that hold the parts of the name, for tests; no row has them.
    pub parts: &'static [&'static str],
    /// A claim that holds the whole name.
    pub whole: Option<&'static str>,
    pub reference: Option<Narrow>,
    pub environment: Option<Narrow>,
    /// Where the API of the platform is, for those that have one home.
    pub home: &'static str,
    /// The platform has no one URL: the issuer's table gives it.
    pub needs_url: bool,
    /// Prints the ids; `{name}`, `{escaped}`, `{first}` and `{last}` are filled in.
    pub print_ids: &'static str,
    pub lookup: Option<Lookup>,
    /// Claims of an ordinary run beside those of the row.
    pub run: &'static [Claim],
    pub permits: [Case; 2],
    /// Tried in this order; those that say something of the row become its tests.
    pub denials: &'static [Case],
}

#[derive(Debug)]
pub struct Id {
    pub claim: &'static str,
    pub option: &'static str,
    /// Of the look-up's answer.
    pub pointer: &'static str,
    pub digits: bool,
}

/// A claim that narrows a row, and one that says that the platform guards it.
#[derive(Debug)]
pub struct Narrow {
    pub claim: &'static str,
    pub guard: Option<&'static str>,
}

/// A public API that tells the ids of a name, and the name again.
#[derive(Debug)]
pub struct Lookup {
    /// Below the platform's home, or the instance's URL.
    pub path: &'static str,
    pub name_at: &'static str,
}

/// A claim and its value; `{claim}` stands for the row's value of another claim. `None`: left out.
pub type Claim = (&'static str, Option<&'static str>);

/// A run that a row is tested with: what it changes of the ordinary one.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// Says something only where the row names this claim.
    pub needs: Option<&'static str>,
    pub change: &'static [Claim],
    /// What is told; `None`: E-STRANGER where a pin says it, else E-NOMATCH.
    pub reason: Option<Reason>,
    /// Code that nobody reviewed: a row that says `untrusted` lets it in.
    pub unreviewed: bool,
}

const fn case(name: &'static str, change: &'static [Claim]) -> Case {
    Case { name, needs: None, change, reason: None, unreviewed: false }
}

impl Case {
    const fn needs(self, claim: &'static str) -> Self {
        Self { needs: Some(claim), ..self }
    }

    const fn because(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    const fn unreviewed(self) -> Self {
        Self { unreviewed: true, ..self }
    }
}

/// No platform has it: a branch that nobody names so.
const OTHER_REF: &str = "refs/heads/not-this-one";
const OTHER: &str = "not-this-one";
const A_UID: &str = "00000000-0000-4000-8000-000000000001";
const OTHER_UID: &str = "00000000-0000-4000-8000-000000000002";

pub const PROVIDERS: &[Provider] = &[GITHUB, GITLAB, KUBERNETES];

const GITHUB: Provider = Provider {
    name: "github",
    shape: "OWNER/REPO",
    nested: false,
    ids: &[
        Id { claim: "repository_owner_id", option: "--owner-id", pointer: "/owner/id", digits: true },
        Id { claim: "repository_id", option: "--repository-id", pointer: "/id", digits: true },
    ],
    pin: Some("repository_owner_id"),
    parts: &[],
    whole: Some("repository"),
    reference: Some(Narrow { claim: "ref", guard: Some("ref_protected") }),
    // Who may deploy to an environment is said where it is set up, not by the workflow.
    environment: Some(Narrow { claim: "environment", guard: None }),
    home: "https://api.github.com",
    needs_url: false,
    print_ids: "gh api repos/{name} --jq '[.owner.id,.id]'",
    lookup: Some(Lookup { path: "/repos/{name}", name_at: "/full_name" }),
    run: &[("event_name", Some("push"))],
    permits: [case("a push", &[]), case("a run by hand", &[("event_name", Some("workflow_dispatch"))])],
    denials: &[
        case("another repository", &[("repository_id", Some("0000001"))]),
        case("a fork", &[("repository_id", Some("0000001")), ("repository_owner_id", Some("0000002"))]),
        case("another ref", &[("ref", Some(OTHER_REF))]).needs("ref"),
        case("another environment", &[("environment", Some(OTHER))]).needs("environment"),
        case("a ref that is not protected", &[("ref_protected", Some("false"))]).needs("ref_protected"),
        case("a pull request", &[("event_name", Some("pull_request"))]).unreviewed(),
        case("no environment", &[("environment", None)]).needs("environment"),
        case("a pull_request_target", &[("event_name", Some("pull_request_target"))]).because(Reason::Event),
        case("a workflow_run", &[("event_name", Some("workflow_run"))]).because(Reason::Event),
    ],
};

const GITLAB: Provider = Provider {
    name: "gitlab",
    shape: "GROUP/PROJECT",
    nested: true,
    ids: &[
        Id { claim: "namespace_id", option: "--namespace-id", pointer: "/namespace/id", digits: true },
        Id { claim: "project_id", option: "--project-id", pointer: "/id", digits: true },
    ],
    pin: Some("namespace_id"),
    parts: &[],
    whole: Some("project_path"),
    reference: Some(Narrow { claim: "ref_path", guard: Some("ref_protected") }),
    // `.gitlab-ci.yml` names it; only a protected one says who may deploy.
    environment: Some(Narrow { claim: "environment", guard: Some("environment_protected") }),
    home: "https://gitlab.com",
    needs_url: false,
    print_ids: "glab api projects/{escaped} | jq '[.namespace.id,.id]'",
    lookup: Some(Lookup { path: "/api/v4/projects/{escaped}", name_at: "/path_with_namespace" }),
    run: &[("job_project_id", Some("{project_id}")), ("pipeline_source", Some("push"))],
    permits: [case("a push", &[]), case("a run by hand", &[("pipeline_source", Some("web"))])],
    denials: &[
        case("another project", &[("project_id", Some("0000001")), ("job_project_id", Some("0000001"))]),
        case("a fork's merge request", &[("project_id", Some("0000001"))]).because(Reason::Event),
        case("another ref", &[("ref_path", Some(OTHER_REF))]).needs("ref_path"),
        case("another environment", &[("environment", Some(OTHER))]).needs("environment"),
        case("a ref that is not protected", &[("ref_protected", Some("false"))]).needs("ref_protected"),
        case("an environment that is not protected", &[("environment_protected", Some("false"))])
            .needs("environment_protected"),
        case("a merge request", &[("pipeline_source", Some("merge_request_event"))]).unreviewed(),
        case("another group", &[("namespace_id", Some("0000002"))]),
        case("a request from outside", &[("pipeline_source", Some("external_pull_request_event"))]).unreviewed(),
    ],
};

const KUBERNETES: Provider = Provider {
    name: "kubernetes",
    shape: "NAMESPACE/SERVICEACCOUNT",
    nested: false,
    ids: &[Id { claim: "service_account_uid", option: "--uid", pointer: "", digits: false }],
    pin: None,
    parts: &["namespace", "service_account"],
    whole: None,
    reference: None,
    environment: None,
    home: "",
    needs_url: true,
    print_ids: "kubectl -n {first} get serviceaccount {last} -o jsonpath='{.metadata.uid}'",
    lookup: None,
    run: &[("pod_uid", Some(A_UID))],
    permits: [case("a pod", &[]), case("another pod of it", &[("pod_uid", Some(OTHER_UID))])],
    denials: &[
        case("a namesake made anew", &[("service_account_uid", Some(OTHER_UID))]),
        case(
            "another account of the namespace",
            &[("service_account_uid", Some(OTHER_UID)), ("service_account", Some(OTHER))],
        ),
        case("a token of no pod", &[("pod_uid", None)]).because(Reason::Claim),
        case("a token without its account's uid", &[("service_account_uid", None)]).because(Reason::Claim),
        case("a token of no namespace", &[("namespace", None)]).because(Reason::Claim),
    ],
};

/// The platform of this name.
pub fn provider(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.name == name)
}
