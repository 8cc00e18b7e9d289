//! The queries of the lists under `/v1`, strictly: a parameter that is unknown or there twice is
//! not understood (400); one whose value is wrong is refused (422). Nothing is ignored, because an
//! ignored filter shows, and tempts one to end, more than was meant.

use std::{ops::RangeInclusive, str::FromStr};

use dayfly_domain::{Reason, UnixMs};

use super::{exchange::malformed, form::Fields};
use crate::{
    flow::{EntitlementFilter, EventFilter, Refused},
    store::{LeaseFilter, TaskFilter},
};

/// Items of one page.
pub const LIMIT_MAX: usize = 500;
const LIMITS: RangeInclusive<usize> = 1..=LIMIT_MAX;
const LIMIT_USUAL: usize = 50;

/// One page of a list, as asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query<F> {
    pub filter: F,
    pub limit: usize,
    pub cursor: Option<String>,
}

/// The well-formed member or parameter `name` has a wrong value.
pub(super) fn wrong(name: &str) -> Refused {
    Refused { hint: Some(format!("`{name}` has a wrong value")), ..Reason::Invalid.into() }
}

pub(super) fn tasks(query: Option<&str>) -> Result<Query<TaskFilter>, Refused> {
    page(query, |fields| {
        Ok(TaskFilter {
            state: word(fields, "state")?,
            task: word(fields, "task")?,
            job: text(fields, "job")?,
            workload: text(fields, "workload")?,
            owner: text(fields, "owner")?,
            issuer: text(fields, "issuer")?,
            template: text(fields, "template")?,
            target: text(fields, "target")?,
            expires_before: time(fields, "expires_before")?,
        })
    })
}

pub(super) fn leases(query: Option<&str>) -> Result<Query<LeaseFilter>, Refused> {
    page(query, |fields| {
        Ok(LeaseFilter {
            state: word(fields, "state")?,
            task: word(fields, "task")?,
            job: text(fields, "job")?,
            workload: text(fields, "workload")?,
            owner: text(fields, "owner")?,
            issuer: text(fields, "issuer")?,
            template: text(fields, "template")?,
            target: text(fields, "target")?,
            kind: word(fields, "kind")?,
            expires_before: time(fields, "expires_before")?,
        })
    })
}

pub(super) fn events(query: Option<&str>) -> Result<Query<EventFilter>, Refused> {
    page(query, |fields| {
        Ok(EventFilter {
            task: word(fields, "task")?,
            lease: word(fields, "lease")?,
            since: time(fields, "since")?,
            until: time(fields, "until")?,
        })
    })
}

pub(super) fn entitlements(query: Option<&str>) -> Result<Query<EntitlementFilter>, Refused> {
    page(query, |fields| {
        Ok(EntitlementFilter { template: text(fields, "template")?, unused_since: time(fields, "unused_since")? })
    })
}

/// Blocks are few: they are listed as a whole, a page at a time.
pub(super) fn blocks(query: Option<&str>) -> Result<Query<()>, Refused> {
    page(query, |_| Ok(()))
}

/// For routes that take no parameter at all.
pub(super) fn none(query: Option<&str>) -> Result<(), Refused> {
    all_taken(&fields(query)?)
}

fn page<F>(query: Option<&str>, filter: impl FnOnce(&mut Fields) -> Result<F, Refused>) -> Result<Query<F>, Refused> {
    let mut fields = fields(query)?;
    let filter = filter(&mut fields)?;
    let query = Query { filter, limit: limit(&mut fields)?, cursor: text(&mut fields, "cursor")? };
    all_taken(&fields)?;
    Ok(query)
}

fn fields(query: Option<&str>) -> Result<Fields, Refused> {
    Fields::parse(query.unwrap_or_default().as_bytes()).map_err(|error| malformed(&error.to_string()))
}

fn all_taken(fields: &Fields) -> Result<(), Refused> {
    if fields.is_empty() { Ok(()) } else { Err(malformed("a parameter is not known here")) }
}

// SECURITY: a page has a bound before anything is allocated for it;
// t_121_a_huge_limit_is_refused
fn limit(fields: &mut Fields) -> Result<usize, Refused> {
    let Some(text) = fields.take("limit") else { return Ok(LIMIT_USUAL) };
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|limit| plain && LIMITS.contains(limit)).ok_or_else(|| wrong("limit"))
}

fn text(fields: &mut Fields, name: &str) -> Result<Option<String>, Refused> {
    match fields.take(name) {
        Some(text) if text.trim().is_empty() => Err(wrong(name)),
        text => Ok(text),
    }
}

fn word<T: FromStr>(fields: &mut Fields, name: &str) -> Result<Option<T>, Refused> {
    fields.take(name).map(|text| text.parse().map_err(|_| wrong(name))).transpose()
}

fn time(fields: &mut Fields, name: &str) -> Result<Option<UnixMs>, Refused> {
    fields.take(name).map(|text| UnixMs::parse(&text).ok_or_else(|| wrong(name))).transpose()
}

#[cfg(test)]
mod tests {
    use dayfly_domain::{Kind, State, TaskId};

    use super::*;

    fn reason<F>(query: Result<Query<F>, Refused>) -> Option<Reason> {
        query.err().map(|refused| refused.reason)
    }

    #[test]
    fn without_a_query_the_first_page_is_asked() {
        let usual = Query { filter: TaskFilter::default(), limit: 50, cursor: None };
        assert_eq!(tasks(None), Ok(usual));
        assert_eq!(tasks(Some("")).unwrap().limit, 50);
    }

    #[test]
    fn every_filter_is_read() {
        let id = TaskId::from_parts(1, [1; 10]);
        let query = format!(
            "state=active&task={id}&job=j&workload=w&owner=o&issuer=i&template=t&target=x&kind=jwt\
             &expires_before=2026-11-22T04:34:56Z&limit=500&cursor=c"
        );
        let Query { filter, limit, cursor } = leases(Some(&query)).unwrap();
        assert_eq!((limit, cursor.as_deref()), (500, Some("c")));
        let text = |text: &str| Some(text.to_owned());
        let expected = LeaseFilter {
            state: Some(State::Active),
            task: Some(id),
            job: text("j"),
            workload: text("w"),
            owner: text("o"),
            issuer: text("i"),
            template: text("t"),
            target: text("x"),
            kind: Some(Kind::Jwt),
            expires_before: UnixMs::parse("2026-11-22T04:34:56Z"),
        };
        assert_eq!(filter, expected);
        let since = events(Some("since=2026-11-22T04:34:56Z")).unwrap().filter.since;
        assert_eq!(since, UnixMs::parse("2026-11-22T04:34:56Z"));
    }

    #[test]
    fn an_unknown_filter_is_never_ignored() {
        for query in ["lease=lse_0", "kind=jwt", "State=active", "where=1", "=", "a", "offset=1"] {
            assert_eq!(reason(tasks(Some(query))), Some(Reason::Request), "{query}");
        }
        assert_eq!(reason(events(Some("state=active"))), Some(Reason::Request));
        assert_eq!(none(Some("x=1")).map_err(|refused| refused.reason), Err(Reason::Request));
        assert_eq!(none(Some("")), Ok(()));
    }

    #[test]
    fn a_repeated_or_garbled_filter_is_not_understood() {
        for query in ["owner=a&owner=b", "limit=1&limit=1", "owner=%ff", "owner=%zz"] {
            assert_eq!(reason(tasks(Some(query))), Some(Reason::Request), "{query}");
        }
    }

    #[test]
    fn t_112_a_filter_without_a_value_is_not_the_absence_of_a_filter() {
        for query in ["owner=", "owner=+", "job", "state=", "cursor=", "limit=", "expires_before=", "target=%20"] {
            assert_eq!(reason(tasks(Some(query))), Some(Reason::Invalid), "{query}");
        }
    }

    #[test]
    fn t_121_a_huge_limit_is_refused() {
        for limit in
            ["0", "501", "-1", "+1", "2147483648", "4294967297", "18446744073709551617", "1e2", "0x10", " 1", "50.0"]
        {
            assert_eq!(
                reason(tasks(Some(&format!("limit={}", limit.replace('+', "%2B"))))),
                Some(Reason::Invalid),
                "{limit}"
            );
        }
        assert_eq!(tasks(Some("limit=1")).unwrap().limit, 1);
    }

    #[test]
    fn wrong_values_are_refused() {
        for query in ["state=live", "state=ACTIVE", "expires_before=tomorrow", "expires_before=1"] {
            assert_eq!(reason(tasks(Some(query))), Some(Reason::Invalid), "{query}");
        }
        for query in ["task=..", "task=lse_00000000000000000000000000", "kind=jws", "task=%252e"] {
            assert_eq!(reason(leases(Some(query))), Some(Reason::Invalid), "{query}");
        }
    }
}
