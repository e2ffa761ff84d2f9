//! Runs `inferprobe view`: shows a recording on the terminal as `top` does, and in browsers as the agent's page.
//!
//! Both show the same moment of it.
//! Does not depend on: how anything is drawn.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    api::{
        history::{History, Wanted},
        live::Live,
        requests::Requests,
    },
    cli::ViewArgs,
    commands::{
        feed::Feed,
        runtime,
        top::{self, options::Screen},
    },
    config::listen,
    exporter::{
        self,
        source::{ApiSource, MetricsSource},
    },
    metrics::{Format, Selection},
    recording::{content::Recording, player::Player},
    screen::text,
    usage::UsageError,
};

/// Where the page is served beside a screen: on a free port.
const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A checked command.
#[derive(Debug)]
pub struct Request {
    file: PathBuf,
    listen: Option<SocketAddr>,
    screen: Screen,
}

/// What the endpoint serves of a recording.
struct Site(Player);

impl Request {
    /// Checks the command line.
    pub fn check(args: &ViewArgs) -> Result<Self, UsageError> {
        let address = args.listen.as_deref();
        Ok(Self {
            file: args.file.clone(),
            listen: address
                .map(|address| listen::parse("--listen", address))
                .transpose()?,
            screen: Screen::check(&args.screen),
        })
    }
}

/// Shows the recording until the user quits; without a terminal, prints its end, or serves the page until a signal.
pub fn run(request: Request) -> Result<()> {
    let Request {
        file,
        listen,
        screen,
    } = request;
    let recording = open(&file)?;
    let player = Player::new(recording, false, Instant::now());
    let runtime = runtime::new()?;
    let name = text::clean(&file.to_string_lossy());
    let is_once = screen.asks_for_once() || (screen.is_once() && listen.is_none());
    if is_once {
        player.end();
        return top::show(runtime, Feed::Recording(player), name, &screen, None);
    }
    let address = listen.unwrap_or(FREE);
    let listener = runtime.block_on(TcpListener::bind(address)).with_context(|| {
        format!("--listen {address}: cannot listen there; stop the process that uses the port, or choose another address")
    })?;
    let address = listener
        .local_addr()
        .context("read back the listening address")?;
    let page = format!("http://{address}/");
    let site = Arc::new(Site(player.clone()));
    if screen.is_once() {
        return runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
            let ended = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            writeln!(io::stdout(), "{name} is shown at {page}").context("print the address")?;
            exporter::serve(listener, site, ended).await;
            Ok(())
        });
    }
    runtime
        .spawn(async move { exporter::serve(listener, site, std::future::pending::<()>()).await });
    top::show(runtime, Feed::Recording(player), name, &screen, Some(page))
}

fn open(path: &Path) -> Result<Recording> {
    let of = || format!("FILE {}", path.display());
    let from: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).with_context(|| format!("{}: open it", of()))?),
    };
    let recording = Recording::read(from).with_context(of)?;
    if recording.is_cut {
        // The rest is shown; a message that cannot be written is no reason not to.
        let _ = writeln!(
            io::stderr(),
            "inferprobe: {}: its last line was cut off and is left out",
            of()
        );
    }
    Ok(recording)
}

impl MetricsSource for Site {
    fn metrics(&self, _: &Selection, _: Format) -> String {
        "# a recording has no metrics\n".into()
    }

    fn health(&self) -> Result<String, String> {
        Ok("ok: a recording is shown".into())
    }

    fn api(&self) -> Option<&dyn ApiSource> {
        Some(self)
    }
}

impl ApiSource for Site {
    fn live(&self) -> Live {
        self.0.live(Instant::now())
    }

    fn requests(&self, after: Option<u64>, limit: usize) -> Requests {
        self.0.requests(after, limit, Instant::now())
    }

    fn history(&self, wanted: &Wanted) -> History {
        self.0.history(wanted, Instant::now())
    }
}
