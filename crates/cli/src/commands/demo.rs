//! `demo`: watch three processes keep one login alive through every mishap.

use std::time::Duration;

use pilotlight_core::state::State;
use tokio::time::MissedTickBehavior;

use crate::{
    app::App,
    args::Demo,
    demo::{Display, Figures, Fleet, Mishaps, World},
    failure::Failure,
    report::{events, story, words},
};

pub(crate) async fn run(app: &App, args: Demo) -> Result<(), Failure> {
    let world = World::begin(app, &args).await?;
    let mut display = Display::new(&app.report, args.seconds);
    display.tell("One login, by the client code that ships. From here on nobody logs in again.");
    let mut fleet = Fleet::start(&world)?;
    let mut mishaps = Mishaps::planned(args.seconds, args.grace);

    let end = app.clock().now().mono + Duration::from_secs(args.seconds);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = fleet.next() => display.heard(&news),
            _ = look.tick() => {
                for told in mishaps.step(&world, &mut fleet, app.clock().now().mono).await? {
                    display.tell(&told);
                }
                let status = world.status().await?;
                display.draw(&fleet, &status, end, app);
                let lost = matches!(status.state, State::LoginRequired { .. } | State::Suspect { .. });
                if lost || app.clock().now().mono >= end {
                    break;
                }
            }
        }
    }
    display.tell("Letting the processes finish.");
    fleet.stop(|news| display.heard(&news)).await;
    display.end();

    let (login, history) = world.account().await?;
    let figures = Figures::read(&world, &fleet, &mishaps, &history, app.now());
    if app.report.json() {
        let told: Vec<_> = history.iter().map(events::to_json).collect();
        app.report.object(figures.to_json(&login, told));
    } else {
        app.report.data(figures.table(app.report.colour()));
        app.report.data(format!(
            "\nWhat `pilotlight why demo` would tell:\n\n{}",
            story::tell(&login, &history, app.now(), &words::here())
        ));
        app.report
            .data(format!("\n{}", figures.verdict(args.grace)));
    }
    world.end().await;
    if args.grace == 0 || figures.all_well() {
        Ok(())
    } else {
        Err(Failure::silent(NOT_WELL))
    }
}

const LOOK: Duration = Duration::from_millis(50);
const NOT_WELL: u8 = 1;
