//! What an end did, and who knows of it already (law L12).

use super::{
    failure::Failure,
    print::{self, Shown, text},
    session::Session,
    table::Table,
};
use crate::{cli::args::Output, http::shapes::Ended};

/// One line of talk; as data each channel with what it knows and the worst case.
pub fn show(ended: &Ended, session: &Session) -> Result<(), Failure> {
    session.screen.say(&line(ended));
    session.screen.data(&data(ended, session.output))
}

fn line(ended: &Ended) -> String {
    let cause = ended.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    let leases = if ended.leases_ended == 1 { "lease" } else { "leases" };
    format!("{} is {}{cause} · {} {leases} ended", ended.id, ended.state, ended.leases_ended)
}

fn data(ended: &Ended, output: Output) -> String {
    if output != Output::Table {
        return print::one(ended, output);
    }
    let mut table = Table::new(&["channel", "knows", "honoured until at worst"]);
    for known in &ended.revocation {
        let knows = if known.known { "at once" } else { "not yet" };
        table.row(&[known.channel.as_str(), knows, &known.worst_case_at.to_string()]);
    }
    table.render()
}

impl Shown for Ended {
    const HEAD: &'static [&'static str] = &["id", "state", "leases"];

    fn id(&self) -> String {
        self.id.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.id.clone(), self.state.to_string(), self.leases_ended.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("id", self.id.clone()),
            ("state", self.state.to_string()),
            ("cause", text(self.cause.as_ref())),
            ("ended", text(self.ended_at.as_ref())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn every_channel_says_what_it_knows_and_the_worst_case() {
        let ended: Ended = serde_json::from_value(samples::ended("tsk_x")).unwrap();
        assert_eq!(line(&ended), "tsk_x is ended (revoked) · 2 leases ended");
        insta::assert_snapshot!(data(&ended, Output::Table), @r"
        CHANNEL        KNOWS    HONOURED UNTIL AT WORST
        introspection  at once  2026-11-22T05:01:30Z
        expiry         not yet  2026-11-22T05:15:00Z
        ");
        assert_eq!(data(&ended, Output::Name), "tsk_x\n");
        assert!(data(&ended, Output::Json).contains(r#""schema_version":1"#));
    }
}
