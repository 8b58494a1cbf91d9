//! `rename`: another local name for a login.

use serde_json::json;

use crate::{app::App, args::Rename, failure::Failure, target::check_name};

pub(crate) async fn run(app: &App, args: Rename) -> Result<(), Failure> {
    check_name(&args.new)?;
    let (store, target) = app.open_target(&args.old).await?;
    let old = target.typed();
    if let Some(mut binding) = target.binding {
        binding.name.clone_from(&args.new);
        store.put_binding(&binding).await?;
    }
    if app.report.json() {
        app.report.object(json!({ "old": old, "new": args.new }));
    } else {
        app.report.say(format!("{old} is now called {}.", args.new));
    }
    Ok(())
}
