//! The command line of `twinseal demo`.

/// The least size: IPv4, UDP and the header of a test packet.
const MIN_SIZE: u16 = 28 + twinseal_lab::traffic::HEADER as u16;
/// The largest packet that fits an underlay of 1500 octets.
const MAX_SIZE: u16 = 1500 - twinseal_wire::OVERHEAD_V4 as u16;

/// Options of `twinseal demo`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Print the verdict as one JSON object on standard output, and nothing else.
    #[arg(long)]
    pub json: bool,
    /// How long traffic flows, in seconds: 2 to 3600.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub duration: u64,
    /// Octets of the inner IP packets: 56 to 1408.
    #[arg(long, value_name = "BYTES", default_value_t = 1400)]
    pub size: u16,
    /// Leave the network and the routers running afterwards, to play with.
    #[arg(long)]
    pub keep: bool,
    /// Take down what an earlier --keep left, by the name that it printed, and do nothing else.
    #[arg(long, value_name = "NAME", exclusive = true)]
    pub teardown: Option<String>,
}

impl DemoArgs {
    /// Checks what the parser does not.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (MIN_SIZE..=MAX_SIZE).contains(&self.size),
            "--size {}: give {MIN_SIZE} to {MAX_SIZE} octets",
            self.size
        );
        Ok(())
    }
}
