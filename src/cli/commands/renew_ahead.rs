//! `tmpcred renew-ahead`, which tmpcred starts in the background.

use time::OffsetDateTime;

use crate::cli::args::RenewAhead;
use crate::cli::prepare::configured;
use crate::cli::{App, misuse};
use crate::error::Result;
use crate::pipeline;

pub(super) fn run(app: &App, args: &RenewAhead) -> Result<()> {
    let ends = OffsetDateTime::from_unix_timestamp(args.ends)
        .map_err(|cause| misuse("`--ends` is no point in time").because(cause))?;
    let prepared = configured(app, &args.wanted)?;
    // As in the run that started this one.
    let see_to_it =
        if args.if_revoked { pipeline::replace_if_revoked } else { pipeline::renew_ahead };
    see_to_it(&prepared.asking()?, &prepared.cache, &prepared.plan, ends)
}
