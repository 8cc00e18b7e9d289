//! Claims beside a row, as people see them: what this job has, what the row wants.

use crate::{
    cli::table::escape,
    http::shapes::{ComparedClaim, ComparedRow, Comparison, EvidenceCheck},
};

const GOOD: &str = "ok";
const BAD: &str = "✗";

/// Of a refusal: the nearest row.
pub fn nearest(comparison: &Comparison, paint: bool) -> String {
    let head = format!("nearest row `{}` wants", comparison.row);
    let mut out = claims(&head, &comparison.claims, paint);
    out.extend(comparison.obstacles.iter().map(|obstacle| format!("  also: {}\n", escape(obstacle))));
    out
}

/// Of an explanation. `head`: what stands over the wanted values.
pub fn row(row: &ComparedRow, head: &str, paint: bool) -> String {
    let mut out = claims(head, &row.claims, paint);
    out.extend(row.obstacles.iter().map(|obstacle| format!("  also: {}\n", escape(obstacle))));
    out
}

/// The evidence, piece by piece.
pub fn evidence(checks: &[EvidenceCheck], paint: bool) -> String {
    let line = |check: &EvidenceCheck| {
        let wanted = check.wanted.join(" or ");
        let seen = check.seen.clone().unwrap_or_else(|| "MISSING".to_owned());
        let seen = if check.seen.is_none() && check.ok { String::new() } else { seen };
        let note = check.note.as_ref().map(|note| format!("  {note}")).unwrap_or_default();
        Line { cells: [check.what.clone(), seen, wanted], ok: check.ok, note }
    };
    table(["evidence", "this token has", "the bundle wants"], &checks.iter().map(line).collect::<Vec<_>>(), paint)
}

/// What would make the row match, in words; nothing when it does.
pub fn wish(comparison: &Comparison) -> Option<String> {
    let claim = |claim: &ComparedClaim| match claim.wanted.as_slice() {
        [one] => format!("`{}` `{one}`", claim.claim),
        many => format!("`{}` one of `{}`", claim.claim, many.join("`, `")),
    };
    let wishes: Vec<_> = comparison.claims.iter().filter(|claim| !claim.ok).map(claim).collect();
    (!wishes.is_empty()).then(|| format!("run it with {}", wishes.join(" and ")))
}

fn claims(head: &str, claims: &[ComparedClaim], paint: bool) -> String {
    let line = |claim: &ComparedClaim| {
        let seen = match (&claim.seen, claim.other_type) {
            (Some(seen), _) => seen.clone(),
            (None, true) => "OF ANOTHER TYPE".to_owned(),
            (None, false) => "MISSING".to_owned(),
        };
        Line { cells: [claim.claim.clone(), seen, claim.wanted.join(" or ")], ok: claim.ok, note: String::new() }
    };
    table(["claim", "this job has", head], &claims.iter().map(line).collect::<Vec<_>>(), paint)
}

struct Line {
    cells: [String; 3],
    ok: bool,
    note: String,
}

/// The last column says whether it fits.
fn table(head: [&str; 3], lines: &[Line], paint: bool) -> String {
    let safe = |cells: &[String; 3]| cells.each_ref().map(|cell| escape(cell).into_owned());
    let head = head.map(|cell| escape(cell).into_owned());
    let rows: Vec<_> = lines.iter().map(|line| safe(&line.cells)).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    // What stands over the last column may reach over the verdicts.
    let first = [0, 1].map(|at| width(at).max(head[at].chars().count()));
    let last = width(2);
    let start = |cells: &[String; 3]| format!("  {:<a$}  {:<b$}  ", cells[0], cells[1], a = first[0], b = first[1]);
    let mut out = format!("{}{}\n", start(&head), head[2]);
    for (line, cells) in lines.iter().zip(&rows) {
        let verdict = verdict(line.ok, paint);
        let text = format!("{}{:<last$}  {verdict}{}", start(cells), cells[2], escape(&line.note));
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

fn verdict(ok: bool, paint: bool) -> String {
    let (word, code) = if ok { (GOOD, "32") } else { (BAD, "1;31") };
    if paint { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(claim: &str, seen: Option<&str>, wanted: &[&str]) -> ComparedClaim {
        let ok = seen.is_some_and(|seen| wanted.contains(&seen));
        let wanted = wanted.iter().map(ToString::to_string).collect();
        ComparedClaim { claim: claim.to_owned(), seen: seen.map(str::to_owned), other_type: false, wanted, ok }
    }

    fn refused() -> Comparison {
        let claims = vec![
            claim("repository_id", Some("88120"), &["88120"]),
            claim("ref", Some("refs/heads/fix-cart"), &["refs/heads/main", "refs/heads/next"]),
            claim("environment", None, &["production"]),
        ];
        Comparison { row: "shop-main".to_owned(), claims, obstacles: vec!["unreviewed\u{1b}".to_owned()] }
    }

    #[test]
    fn what_was_seen_stands_beside_what_was_wanted() {
        insta::assert_snapshot!(nearest(&refused(), false), @r"
        claim          this job has         nearest row `shop-main` wants
        repository_id  88120                88120                               ok
        ref            refs/heads/fix-cart  refs/heads/main or refs/heads/next  ✗
        environment    MISSING              production                          ✗
        also: unreviewed\u{1b}
        ");
        assert_eq!(
            wish(&refused()).unwrap(),
            "run it with `ref` one of `refs/heads/main`, `refs/heads/next` and `environment` `production`"
        );
    }

    #[test]
    fn colour_only_where_it_is_wanted() {
        assert!(nearest(&refused(), true).contains("\u{1b}[1;31m✗\u{1b}[0m"));
        assert!(!nearest(&refused(), false).contains('\u{1b}'));
    }
}
