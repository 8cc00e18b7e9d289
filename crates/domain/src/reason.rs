//! Every way to be refused, in one table: the only place that maps a failure.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $oauth:literal, $exit:literal, $help:literal;)+) => {
        /// A stable reason code. Each verb's error maps to one of these, exhaustively.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant),+ }

        /// All reasons, in the order of the reference.
        pub const REASONS: &[ReasonRow] = &[
            $(ReasonRow { reason: Reason::$variant, code: $code, status: $status, oauth: $oauth, exit: $exit, help: $help }),+
        ];
    };
}

/// What the outside sees of a reason.
#[derive(Debug, Clone, Copy)]
pub struct ReasonRow {
    pub reason: Reason,
    /// `E-...`, stable for ever.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// OAuth error code (RFC 6749, 8693, 8707, 9396, 9449).
    pub oauth: &'static str,
    /// Exit code of the command line.
    pub exit: u8,
    /// One line: what it means and what to do. Printable ASCII without `"` and `\`.
    pub help: &'static str,
}

reasons! {
    /// Missing, repeated or malformed parameter.
    Request = "E-REQUEST", 400, "invalid_request", 2, "a parameter is missing, repeated or malformed; correct the request";
    GrantType = "E-GRANT-TYPE", 400, "unsupported_grant_type", 2, "only token exchange (RFC 8693) is offered at this endpoint";
    /// Bad form, header or signature.
    Signature = "E-SIGNATURE", 400, "invalid_request", 4, "the token is not a well-formed JWT signed by its issuer";
    Issuer = "E-ISSUER", 400, "invalid_request", 4, "the token's issuer is not in the trust bundle; add an issuer table";
    Audience = "E-AUDIENCE", 400, "invalid_request", 4, "the token's aud must be exactly the audience that the issuer table gives, by default the broker's issuer URL";
    Expired = "E-EXPIRED", 400, "invalid_request", 4, "the token is expired, not yet valid or older than its profile allows; fetch a fresh one";
    Claim = "E-CLAIM", 400, "invalid_request", 4, "a claim that the profile needs is missing, empty or of another type";
    /// Well signed, but the issuer's pins do not match.
    Stranger = "E-STRANGER", 400, "invalid_request", 77, "the token is genuine but belongs to nobody this broker serves; check the issuer's pin";
    Event = "E-EVENT", 400, "invalid_request", 77, "the profile refuses this kind of run; start the job by an event that runs reviewed code";
    /// An attestation result that does not affirm everything.
    Appraisal = "E-APPRAISAL", 400, "invalid_request", 77, "the attestation result does not affirm every part of the workload; its verifier says why";
    Own = "E-OWN", 400, "invalid_request", 4, "nothing that Dayfly issued is evidence; present the platform's token";
    Replayed = "E-REPLAYED", 400, "invalid_request", 77, "this evidence has already opened a task; use that task's handle, or fetch a fresh token";
    /// Evidence, or a job, that shows a second key: somebody else has it.
    Conflict = "E-CONFLICT", 400, "invalid_request", 77, "this evidence, or its job, has already shown another key: either of the two may be a thief; look at the task, end it, and fetch a fresh token";
    /// The platform was asked (Kubernetes: TokenReview), and knows the workload no more.
    NotAlive = "E-NOT-ALIVE", 400, "invalid_request", 77, "the platform says that this workload no longer exists; its token opens nothing any more";
    /// Handle unknown, cut, of the wrong type or without its proof.
    Handle = "E-HANDLE", 400, "invalid_request", 4, "the handle is not one of a live task";
    HandleUsed = "E-HANDLE-USED", 400, "invalid_request", 2, "this task_control_s256 belongs to another task; make a new handle for each task";
    Ended = "E-ENDED", 400, "invalid_request", 77, "the task has ended or passed its deadline; open a new one with fresh evidence";
    Ticket = "E-TICKET", 400, "invalid_authorization_details", 2, "the ticket is fixed when the task opens and is refused with a handle";
    /// No template of that name, or none that this workload may run.
    NoMatch = "E-NOMATCH", 400, "invalid_scope", 77, "no row of this template matches this workload; ask an operator to show the decision";
    Forbidden = "E-FORBIDDEN", 400, "invalid_scope", 77, "a forbid policy denies this; ask an operator to show the decision";
    /// Evaluation failed: an error is a deny (law L4).
    Policy = "E-POLICY", 400, "invalid_scope", 77, "the policy could not be evaluated for this request, so it denies; operators see the error";
    Blocked = "E-BLOCKED", 400, "invalid_scope", 77, "an operator ended this work and blocked it: until the task's deadline, or until the block is lifted";
    PerJob = "E-PER-JOB", 400, "invalid_scope", 77, "this job already has as many live tasks of the template as it may have; end one first";
    Template = "E-TEMPLATE", 400, "invalid_scope", 77, "a task stays with its template; open another task for another template";
    Details = "E-DETAILS", 400, "invalid_authorization_details", 2, "authorization_details must be one dayfly_task object with fields that the template grants";
    Target = "E-TARGET", 400, "invalid_target", 2, "name one target of the template as resource";
    /// A request for a certificate that cannot be read, is not its own key's, or asks for more than is granted.
    Csr = "E-CSR", 400, "invalid_request", 2, "send csr as base64url of a PKCS#10 request in DER, signed with its own P-256 key, that asks for nothing but what the template grants";
    /// A proof of possession is missing, wrong or used (RFC 9449).
    Dpop = "E-DPOP", 400, "invalid_dpop_proof", 4, "send a DPoP proof (RFC 9449) made for this very request with the key that the credential is bound to, each proof once";
    /// RFC 9449 section 8: the answer carries the nonce.
    DpopNonce = "E-DPOP-NONCE", 400, "use_dpop_nonce", 75, "make the DPoP proof again with the nonce in this answer's DPoP-Nonce";
    Client = "E-CLIENT", 401, "invalid_client", 4, "authenticate with a token for this broker, as a verifier with a client_assertion, or use its local socket";
    Scope = "E-SCOPE", 403, "insufficient_scope", 77, "the caller's token or handle lacks the action for this";
    NotFound = "E-NOT-FOUND", 404, "invalid_request", 3, "there is no such thing, or it is not visible to this caller";
    NotActive = "E-NOT-ACTIVE", 409, "invalid_request", 1, "it is not active any more";
    /// Another number of leases matches than was expected.
    Count = "E-COUNT", 409, "invalid_request", 1, "another number of live leases matches than was expected, so nothing was ended; look again and send the number that you see";
    Blocks = "E-BLOCKS", 409, "invalid_request", 1, "there are as many standing blocks as there may be; lift those that are no longer needed (dayfly block ls), or end without one";
    Method = "E-METHOD", 405, "invalid_request", 2, "this path does not take that method";
    TooLarge = "E-TOO-LARGE", 413, "invalid_request", 2, "the body is larger than 64 KiB";
    MediaType = "E-MEDIA-TYPE", 415, "invalid_request", 2, "send application/json";
    Invalid = "E-INVALID", 422, "invalid_request", 2, "the JSON is well formed but a member is wrong";
    /// The bundle that was asked to be loaded has errors; the old one stays.
    Bundle = "E-BUNDLE", 422, "invalid_request", 1, "the trust bundle has errors, so the one in force stays; mend what is listed and load it again";
    /// The bundle was in force before and was replaced; `strict_rollback` is set.
    Rollback = "E-ROLLBACK", 409, "invalid_request", 1, "this bundle was in force before and was replaced, and strict_rollback refuses to go back to it; change it, or lift the setting";
    Cursor = "E-CURSOR", 410, "invalid_request", 75, "the cursor is from an earlier start of the broker; begin the list again";
    Timeout = "E-TIMEOUT", 408, "invalid_request", 75, "the request did not arrive in time";
    Headers = "E-HEADERS", 431, "invalid_request", 2, "the header block is larger than 16 KiB";
    /// A second end of very much within a minute.
    Mass = "E-MASS", 429, "temporarily_unavailable", 75, "an end of so much is one a minute; look at what the first one ended, and try the same again when Retry-After says";
    /// More asks than the address or the workload may make; nothing is used up.
    Rate = "E-RATE", 429, "temporarily_unavailable", 75, "this address, or this workload, asks more often than it may; nothing was used up: try the same again when Retry-After says";
    /// More asks of one job for one template in a minute than any job needs.
    Storm = "E-STORM", 429, "temporarily_unavailable", 75, "this job asks for this template as a loop would, so it is refused until the minute is over; look at what it does, and try again when Retry-After says";
    /// As many live leases as the owner, or the workload, may have.
    Quota = "E-QUOTA", 429, "temporarily_unavailable", 75, "there are as many live credentials as there may be; end what is done with, or try the same again when Retry-After says";
    Overtaken = "E-OVERTAKEN", 503, "temporarily_unavailable", 75, "something changed while this was decided; try again with the same evidence or handle";
    IssuerDown = "E-ISSUER-DOWN", 503, "temporarily_unavailable", 75, "the token's issuer is away: its keys could not be fetched, or its review of the token; try again";
    Store = "E-STORE", 503, "temporarily_unavailable", 75, "the record cannot be written, so nothing is issued; try again";
    Key = "E-KEY", 503, "temporarily_unavailable", 75, "no signing key is usable; operators see why";
    Clock = "E-CLOCK", 503, "temporarily_unavailable", 75, "the broker's clocks disagree, so nothing is issued until they agree";
    Busy = "E-BUSY", 503, "temporarily_unavailable", 75, "too much is under way; try again";
    NotDurable = "E-NOT-DURABLE", 503, "temporarily_unavailable", 75, "ended in memory at once, but not yet on disk; it is retried until it is";
    Internal = "E-INTERNAL", 500, "server_error", 1, "a defect of the broker; its log names the request id";
}

impl Reason {
    pub fn row(self) -> &'static ReasonRow {
        // INVARIANT: the macro writes enum and table in one order; `the_table_is_in_order` holds it.
        &REASONS[self as usize]
    }

    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// The reason with this stable code.
    pub fn from_code(code: &str) -> Option<Self> {
        REASONS.iter().find(|row| row.code == code).map(|row| row.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (index, row) in REASONS.iter().enumerate() {
            assert_eq!(row.reason as usize, index);
            assert_eq!(Reason::from_code(row.code), Some(row.reason));
        }
    }

    #[test]
    fn help_fits_an_oauth_error_description() {
        let printable = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
        for row in REASONS {
            assert!(row.help.bytes().all(printable), "{}", row.code);
            assert!(row.code.starts_with("E-"));
        }
    }
}
