//! Rows, taken apart: each claim that a row names beside the workload's. A plain matcher, which never
//! decides anything; a test holds it against Cedar.

use dayfly_domain::{ClaimType, ClaimValue, Name, Workload, bundle::Row, told};

use super::{Policy, decide::is_of, explain::WANTED_MAX};

/// One row beside one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSeen {
    pub id: Name,
    pub issuer: Name,
    pub owner: Name,
    /// Claims that are not as wanted, and obstacles. None: the row matches.
    pub differences: usize,
    pub claims: Vec<ClaimSeen>,
    pub obstacles: Vec<RowObstacle>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimSeen {
    pub claim: String,
    pub seen: Seen,
    /// One of these; text, cut.
    pub wanted: Vec<String>,
    pub ok: bool,
}

/// What the workload has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Value(String),
    Missing,
    /// Another type than the claim is declared with now.
    OtherType,
}

/// What no claim of the row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowObstacle {
    Issuer {
        row: Name,
        workload: Name,
    },
    Untrusted,
    Disabled,
    /// Its review date, with the grace over.
    Overdue(String),
    IssuerDisabled(Name),
}

impl RowObstacle {
    pub fn fact(&self) -> String {
        match self {
            Self::Issuer { row, workload } => {
                format!("the row is for evidence of `{row}`, and this is of `{workload}`")
            }
            Self::Untrusted => "the evidence speaks for unreviewed code, and the row is not for such".to_owned(),
            Self::Disabled => "the row, or its owner, is disabled".to_owned(),
            Self::Overdue(date) => format!("the row was to be reviewed by {date}, and its grace is over"),
            Self::IssuerDisabled(name) => format!("the issuer `{name}` is disabled"),
        }
    }

    fn wish(&self) -> String {
        match self {
            Self::Issuer { row, .. } => format!("evidence of `{row}`"),
            Self::Untrusted => "evidence of reviewed code".to_owned(),
            Self::Disabled => "the row enabled".to_owned(),
            Self::Overdue(_) => "a review, and a new `review_by`".to_owned(),
            Self::IssuerDisabled(name) => format!("the issuer `{name}` enabled"),
        }
    }
}

impl RowSeen {
    /// What would make the row match; nothing when it does.
    pub fn wish(&self) -> Option<String> {
        let claims = self.claims.iter().filter(|claim| !claim.ok).map(ClaimSeen::wish);
        let wishes: Vec<_> = claims.chain(self.obstacles.iter().map(RowObstacle::wish)).collect();
        (!wishes.is_empty()).then(|| format!("row `{}` with {}", self.id, wishes.join(", and ")))
    }
}

impl ClaimSeen {
    fn wish(&self) -> String {
        match self.wanted.as_slice() {
            [one] => format!("`{}` `{one}`", self.claim),
            many => format!("`{}` one of `{}`", self.claim, many.join("`, `")),
        }
    }
}

/// The `most` rows that come nearest: of the workload's own issuer first, then by fewest claims that
/// differ, then by fewest obstacles, ties by id.
pub(super) fn nearest<'a>(
    policy: &Policy,
    workload: &Workload,
    rows: impl Iterator<Item = &'a Row>,
    most: usize,
) -> Vec<RowSeen> {
    let mut ranked: Vec<_> = rows.map(|row| (Beside { policy, workload, row }.rank(), row)).collect();
    ranked.sort_unstable_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(most).map(|(_, row)| Beside { policy, workload, row }.seen()).collect()
}

struct Beside<'a> {
    policy: &'a Policy,
    workload: &'a Workload,
    row: &'a Row,
}

impl<'a> Beside<'a> {
    /// What the workload is says more of which row was meant than what blocks that row.
    fn rank(&self) -> (bool, usize, usize, &'a Name) {
        (self.row.issuer != self.workload.issuer, self.misfits(), self.obstacles().len(), &self.row.id)
    }

    fn misfits(&self) -> usize {
        self.row.claims.iter().filter(|(name, wanted)| !self.fits(name, wanted)).count()
    }

    fn seen(&self) -> RowSeen {
        let claim = |(name, wanted): (&String, &Vec<ClaimValue>)| ClaimSeen {
            claim: name.clone(),
            seen: self.value(name),
            wanted: values(wanted),
            ok: self.fits(name, wanted),
        };
        RowSeen {
            id: self.row.id.clone(),
            issuer: self.row.issuer.clone(),
            owner: self.row.owner.clone(),
            differences: self.misfits() + self.obstacles().len(),
            claims: self.row.claims.iter().map(claim).collect(),
            obstacles: self.obstacles(),
        }
    }

    fn obstacles(&self) -> Vec<RowObstacle> {
        let Self { policy, workload, row } = self;
        let mut found = Vec::new();
        if row.issuer != workload.issuer {
            found.push(RowObstacle::Issuer { row: row.issuer.clone(), workload: workload.issuer.clone() });
        } else if policy.bundle.issuers.get(&row.issuer).is_none_or(|issuer| issuer.disabled) {
            found.push(RowObstacle::IssuerDisabled(row.issuer.clone()));
        }
        if workload.untrusted && !row.untrusted {
            found.push(RowObstacle::Untrusted);
        }
        if row.disabled {
            found.push(RowObstacle::Disabled);
        }
        if policy.is_lapsed(&row.id) {
            found.push(RowObstacle::Overdue(row.review_by.to_string()));
        }
        found
    }

    /// A claim that is missing, or of another type than declared, never matches.
    fn fits(&self, name: &str, wanted: &[ClaimValue]) -> bool {
        self.claim(name).is_some_and(|(value, kind)| is_of(value, kind) && value.is_one_of(wanted))
    }

    fn value(&self, name: &str) -> Seen {
        match self.claim(name) {
            None => Seen::Missing,
            Some((value, kind)) if is_of(value, kind) => Seen::Value(told(&value.to_string())),
            Some(_) => Seen::OtherType,
        }
    }

    /// The workload's claim, and the type that the row's issuer declares it with.
    fn claim(&self, name: &str) -> Option<(&'a ClaimValue, ClaimType)> {
        let issuer = self.policy.bundle.issuers.get(&self.row.issuer)?;
        let kind = issuer.claims.get(name)?.kind;
        self.workload.claims.get(name).filter(|_| issuer.profile == self.workload.profile).map(|value| (value, kind))
    }
}

fn values(wanted: &[ClaimValue]) -> Vec<String> {
    let mut values: Vec<_> = wanted.iter().take(WANTED_MAX).map(|value| told(&value.to_string())).collect();
    if wanted.len() > WANTED_MAX {
        values.push(format!("(and {} more)", wanted.len() - WANTED_MAX));
    }
    values
}
