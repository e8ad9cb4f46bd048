//! A guest's network devices, and what they are plugged into.

use std::path::PathBuf;

/// A network device of a guest.
#[derive(Debug, Clone)]
pub struct Nic {
    /// What the guest's driver sees.
    pub model: Model,
    /// Its MAC address.
    pub mac: String,
    /// Where its frames go.
    pub end: End,
}

/// A kind of network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// virtio-net, which may leave checksums and segmentation to whatever it is plugged into, as it usually does.
    Virtio {
        /// Whether it may.
        offload: bool,
    },
    /// Intel's 82574L: a card with checksums and segmentation in hardware, and a driver that real machines run (`e1000e`).
    E1000e,
}

/// What a device is plugged into.
#[derive(Debug, Clone)]
pub enum End {
    /// Nothing.
    Nowhere,
    /// A tap of the namespace that the guest is started in. Checksums and segmentation may be left to it.
    Tap(String),
    /// One end of a wire between two guests, each frame a datagram: frames are no longer than the MTU and have their checksums, as on a wire.
    Wire {
        /// The unix socket that is made here.
        local: PathBuf,
        /// The unix socket of the other end.
        remote: PathBuf,
    },
}

impl Nic {
    /// virtio-net on a tap.
    pub fn on_tap(tap: &str, mac: &str, offload: bool) -> Self {
        Self { model: Model::Virtio { offload }, mac: mac.to_owned(), end: End::Tap(tap.to_owned()) }
    }

    /// virtio-net that leads nowhere, for guests that need a device and no network.
    pub fn unplugged(mac: &str) -> Self {
        Self { model: Model::Virtio { offload: true }, mac: mac.to_owned(), end: End::Nowhere }
    }

    /// QEMU's arguments for the device with this number.
    pub(crate) fn arguments(&self, index: usize) -> [String; 4] {
        let backend = match &self.end {
            End::Nowhere => format!("hubport,id=net{index},hubid={index}"),
            End::Tap(tap) => format!("tap,id=net{index},ifname={tap},script=no,downscript=no,vhost=off"),
            End::Wire { local, remote } => format!(
                "dgram,id=net{index},local.type=unix,local.path={},remote.type=unix,remote.path={}",
                local.display(),
                remote.display()
            ),
        };
        let device = match self.model {
            Model::Virtio { offload: true } => "virtio-net-pci",
            Model::Virtio { offload: false } => "virtio-net-pci,csum=off,gso=off,guest_csum=off",
            Model::E1000e => "e1000e",
        };
        // Without an option ROM: guests do not boot from the network.
        let device = format!("{device},netdev=net{index},mac={},romfile=", self.mac);
        ["-netdev".to_owned(), backend, "-device".to_owned(), device]
    }
}
