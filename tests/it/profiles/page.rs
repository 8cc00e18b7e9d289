//! docs/how-to/add-a-provider.md, loaded and run as it stands: its tables are the bundle, its claims
//! are the token, and what it says comes of them comes of them.

use std::{fs, path::Path};

use dayfly_domain::Reason;
use serde_json::{Value, json};

use crate::{
    dev::{dayfly, text},
    world::{Job, OPERATOR, World, ask, reason},
};

/// What any bundle has already.
const AROUND: &str = "format = 1\ntrust_domain = \"example.org\"\n\n[owner.team-web]\ncontact = \"web@example.org\"\n\n\
    [target.web]\nuri = \"https://deploy.web.example.org\"\nenvironment = \"production\"\nowner = \"team-web\"\n\
    binding = \"bearer\"\nverifies = \"exp_only\"\nactions = [\"deploy:create\"]\n\n";

fn page() -> String {
    fs::read_to_string(Path::new(super::ROOT).join("docs/how-to/add-a-provider.md")).unwrap()
}

/// All blocks of a language, in order.
fn blocks(language: &str) -> Vec<String> {
    let (page, start) = (page(), format!("\n```{language}\n"));
    let parts = page.split(&start).skip(1);
    parts.map(|part| part.split_once("\n```\n").expect("the block ends").0.to_owned() + "\n").collect()
}

fn bundle() -> String {
    format!("{AROUND}{}", blocks("toml").join("\n"))
}

/// The page's token, with another `jti`, so that each is evidence of its own.
fn job(number: u32) -> Job {
    let claims: Value = serde_json::from_str(&blocks("json")[0]).unwrap();
    Job(claims).with("jti", format!("c9d7a{number}"))
}

#[tokio::test]
async fn the_pages_own_token_opens_a_task_as_the_page_says() {
    assert_eq!((blocks("toml").len(), blocks("json").len()), (2, 1));
    let world = World::of(&bundle());
    let issued = world.present(&world.sign(job(1)), ask("release-web")).await.unwrap();
    let task = world.flow.task(&OPERATOR, issued.task).await.unwrap().row;
    let (workload, label) = (task.workload.to_string(), task.job.unwrap().to_string());
    let said = page().replace('\n', " ");
    assert!(said.contains(&format!("opens a task as `{workload}`, in the job `{label}`")), "{workload} {label}");
}

#[tokio::test]
async fn what_the_page_refuses_is_refused() {
    let world = World::of(&bundle());
    for (number, (place, value, why)) in [
        ("tenant", json!({ "id": "t-4712", "name": "acme" }), Reason::Stranger),
        ("project", json!({ "id": "p-89", "name": "web" }), Reason::NoMatch),
        ("trigger", json!("proposal"), Reason::NoMatch),
        ("trigger", json!("console"), Reason::Event),
        ("job", json!({ "id": "j-20391", "attempt": 4 }), Reason::Event),
        ("job", json!({ "id": "j-20391" }), Reason::Claim),
        ("branch_protected", json!(true), Reason::Claim),
        ("branch_protected", json!("false"), Reason::NoMatch),
        ("stage", Value::Null, Reason::Claim),
        ("iss", json!("https://id.foundry.example/"), Reason::Issuer),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{place} = {value}");
        let evidence = world.sign(job(10 + u32::try_from(number).unwrap()).with(place, value));
        assert_eq!(reason(world.present(&evidence, ask("release-web")).await), why, "{what}");
    }
}

/// As a user does it: the file, and the command that the page names.
#[test]
fn the_pages_command_is_content_with_the_pages_file() {
    let work = tempfile::tempdir().unwrap();
    let mine = work.path().join("mine");
    fs::create_dir(&mine).unwrap();
    let key = crate::world::new_key();
    fs::write(mine.join("foundry.jwks.json"), json!({ "keys": [key.jwk()] }).to_string()).unwrap();
    let check = |tables: &str| {
        fs::write(mine.join("foundry.toml"), tables).unwrap();
        let checked = dayfly(&["policy", "check", "--policies", "mine"]).current_dir(work.path()).output().unwrap();
        (checked.status.success(), format!("{}{}", text(&checked.stdout), text(&checked.stderr)))
    };
    assert!(page().contains("dayfly policy check --policies mine"));
    let (good, said) = check(&bundle());
    assert!(good, "{said}");
    let (good, said) = check(&bundle().replace("principal = [\"tenant_id\"", "principal = [\"tenant\""));
    assert!(!good && said.contains("profile.foundry.principal"), "a principal of names: {said}");
    let (good, said) = check(&bundle().replace("\"https://{host}/_id\"", "\"https://{host}*/_id\""));
    assert!(!good && said.contains("profile.foundry.own_urls"), "{said}");
}
