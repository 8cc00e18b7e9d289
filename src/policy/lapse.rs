//! Rows whose review is so long overdue that they permit nothing any more. The bundle they stand in
//! stays as it is, and so does what they opened: only nothing new comes of them.
//!
//! Time and the operator's grace come in with [`Policy::lapse`]; decisions look at what it left.

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::ArcSwap;
use dayfly_domain::{Name, Reason, Span, UnixMs};

use super::{Denied, Policy};

/// The rows that lapsed when it was last looked.
#[derive(Debug, Default)]
pub(super) struct Lapsed(ArcSwap<BTreeSet<Name>>);

impl Policy {
    /// From here on, rows whose review date was more than `grace` before `now` permit nothing. Gives
    /// those that lapsed just now. A bundle that was compiled and not told the time has none.
    pub fn lapse(&self, now: UnixMs, grace: Span) -> Vec<Name> {
        let past = self.bundle.overdue(now.plus_s(-i64::from(grace.as_s())));
        let lapsed: BTreeSet<Name> = past.map(|(_, row)| row.id.clone()).collect();
        let before = self.lapsed.0.swap(Arc::new(lapsed.clone()));
        lapsed.difference(&before).cloned().collect()
    }

    /// How many rows permit nothing because of their review date.
    pub fn lapsed_rows(&self) -> usize {
        self.lapsed.0.load().len()
    }

    pub fn is_lapsed(&self, row: &str) -> bool {
        self.lapsed.0.load().contains(row)
    }

    /// Nothing but lapsed rows would permit it. Only who matched such a row is told so.
    pub(super) fn denied_by_lapse() -> Denied {
        let hint = "the entitlement is past its review date and its grace: its owner reviews it and sets a new one";
        Denied { reason: Reason::NoMatch, policies: Vec::new(), hint: Some(hint.to_owned()), inside: None }
    }
}

#[cfg(test)]
mod tests {
    use dayfly_domain::BindingKind;

    use super::*;
    use crate::policy::fixture::{SHOP, ask, bearer, decide, main_job, policy, with};

    const GRACE: Span = Span::seconds(30 * 86_400);

    fn at(text: &str) -> UnixMs {
        UnixMs::parse(text).unwrap()
    }

    #[test]
    fn a_row_lapses_when_its_grace_is_over_and_not_before() {
        let policy = policy(&[("shop.toml", SHOP)]).unwrap();
        let run = || bearer(&policy, &main_job("staging"), &ask("deploy-staging"));
        assert!(run().is_ok(), "nobody told it the time");
        assert_eq!(policy.lapse(at("2027-07-30T23:59:59Z"), GRACE), Vec::<Name>::new());
        assert!(run().is_ok());
        let lapsed = policy.lapse(at("2027-07-31T00:00:00Z"), GRACE);
        assert!(lapsed.iter().any(|row| row == "shop-staging-main"), "{lapsed:?}");
        let denied = run().unwrap_err();
        assert_eq!(denied.reason, Reason::NoMatch);
        assert!(denied.hint.unwrap().contains("past its review date"));
        assert_eq!(policy.lapse(at("2027-08-01T00:00:00Z"), GRACE), Vec::<Name>::new(), "told once");
        assert!(policy.survives("github", "deploy-staging", "shop-staging-main", "team-shop"), "ends nothing");
    }

    #[test]
    fn a_row_that_was_reviewed_goes_on_beside_one_that_was_not() {
        let more = "\n[[task.deploy-staging.allow]]\nid = \"a-short\"\nttl = \"5m\"\nreview_by = 2028-01-01\nissuer = \"github\"\n\
            claims = { repository_id = \"0088120\", event_name = \"push\" }\n";
        let policy = policy(&[("shop.toml", &format!("{SHOP}{more}"))]).unwrap();
        let row = || bearer(&policy, &main_job("staging"), &ask("deploy-staging")).unwrap().row().to_string();
        assert_eq!(row(), "shop-staging-main");
        policy.lapse(at("2027-08-01T00:00:00Z"), GRACE);
        assert_eq!(row(), "a-short");
    }

    #[test]
    fn a_review_that_nobody_made_is_explained() {
        let policy = policy(&[("shop.toml", SHOP)]).unwrap();
        policy.lapse(at("2028-01-01T00:00:00Z"), GRACE);
        let told = policy.explain(&main_job("staging"), &ask("deploy-staging"), with(BindingKind::Bearer));
        let facts: Vec<_> = told.rows[0].obstacles.iter().map(|obstacle| obstacle.fact()).collect();
        assert_eq!(facts, ["the row was to be reviewed by 2027-06-30, and its grace is over"]);
        assert_eq!(told.would_permit, ["row `shop-staging-main` with a review, and a new `review_by`"]);
    }

    #[test]
    fn a_stranger_is_not_told_of_a_review() {
        let policy = policy(&[("shop.toml", SHOP)]).unwrap();
        policy.lapse(at("2030-01-01T00:00:00Z"), GRACE);
        let denied = decide(&policy, &main_job("other"), &ask("deploy-staging"), BindingKind::Dpop).unwrap_err();
        assert_eq!((denied.reason, denied.hint), (Reason::NoMatch, None));
    }
}
