//! `podbay image pull` for a person at a terminal: a bar for each layer, on standard error.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cri::{CriError, Images as _};
use crate::runtime::image::{ImageStore, LayerProgress, Reference};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Pulls, and shows how far it is unless asked to be quiet or nobody sees it.
pub(super) async fn pull(images: &ImageStore, name: &str, quiet: bool) -> Result<String, CriError> {
    let pull = images.pull(name, None);
    let reference = name.parse::<Reference>();
    let (Ok(reference), false, true) = (reference, quiet, std::io::stderr().is_terminal()) else { return pull.await };
    tokio::pin!(pull);
    let mut bars = Bars::default();
    loop {
        match tokio::time::timeout(LOOK_EVERY, &mut pull).await {
            Ok(outcome) => {
                bars.finish(outcome.is_ok());
                return outcome;
            }
            Err(_) => bars.show(&images.progress(&reference).map(|progress| progress.layers()).unwrap_or_default()),
        }
    }
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
}

impl Bars {
    fn show(&mut self, layers: &[LayerProgress]) {
        for layer in layers.iter().skip(self.bars.len()) {
            let bar = self.all.add(ProgressBar::new(layer.total));
            if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {bytes:>10} of {total_bytes:10} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(layer.blob.hex()[..12].to_owned());
            self.bars.push(bar);
        }
        for (bar, layer) in self.bars.iter().zip(layers) {
            bar.set_position(layer.done);
            bar.set_message(word(layer));
        }
    }

    fn finish(&self, whole: bool) {
        for bar in &self.bars {
            if whole {
                bar.set_position(bar.length().unwrap_or_default());
                bar.finish_with_message("ready");
            } else {
                bar.abandon();
            }
        }
        if !self.bars.is_empty() {
            // The cursor is still behind the last bar.
            anstream::eprintln!();
        }
    }
}

fn word(layer: &LayerProgress) -> &'static str {
    match layer {
        LayerProgress { ready: true, .. } => "ready",
        LayerProgress { done, total, .. } if done == total => "unpacking",
        LayerProgress { done: 0, .. } => "waiting",
        _ => "downloading",
    }
}
