//! The command line of `twinseal demo`.

/// Options of `twinseal demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// How long traffic flows, in seconds.
    #[arg(long, value_name = "S", default_value_t = 5)]
    pub duration: u64,
    /// Octets of the inner IP packets.
    #[arg(long, value_name = "BYTES", default_value_t = 1400)]
    pub size: u16,
    /// Leave the network standing afterwards, to look at.
    #[arg(long)]
    pub keep: bool,
}
