//! Serving a new device at once where its tcx link has to wait.
//!
//! BPF_LINK_CREATE of tcx returns after a grace period, with the lock of all devices (rtnl) held: ten milliseconds on an idle machine, a hundred on
//! a busy one. A filter of the `ingress` qdisc is in force when netlink answers. So a new VIF gets the filter first, which serves it, and the link
//! later, on a thread; then the filter goes.
//!
//! **Every frame meets the program exactly once.** Where a frame enters (`sch_handle_ingress`) the kernel reads the device's entry once, runs the
//! tcx programs it finds there, and then, only if all of those said "next", the filters. `oxbow_vif` decides every frame: its verdict is a
//! drop or a redirect, never "next" (`oxbow_underlay` lets the host's frames go on, so it is never attached in this way). A frame that comes before the
//! link is seen meets the filter; one that comes after it meets the link and nothing behind it; and the filter goes after the grace period of the
//! link. There is no moment without one of them.
//!
//! The link stays what it was: pinned, first in the chain, nobody else's to remove by accident. Should the daemon die before, the mark of the filter
//! tells the next one, which knows how to change over from a filter to a link (`Links::detach_strays`).
//!
//! The qdisc stays on the device when the filter has gone: taking it away would take the device out of service for some milliseconds. It is
//! `ingress` and not `clsact`, which would make every frame that leaves by any device of the host look for egress filters.

use super::attach::{AttachError, Attachment, Hook, Links, Role, detach_clsact, device_name, new_filter, pin_error};
use super::link::{create_link, detach_link, has_device, pin_link};
use aya::programs::{SchedClassifier, TcAttachType};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::thread::{self, JoinHandle};

/// Links that a thread makes before it is asked for them: each holds rtnl for a grace period, and whoever detaches a device may have to wait for all.
const LINKS_AT_ONCE: usize = 8;

/// Links that were asked for, by interface index.
type Made = Vec<(u32, io::Result<OwnedFd>)>;

/// VIFs that a filter serves until they have their link.
#[derive(Default)]
pub(super) struct Provisional {
    devices: BTreeSet<u32>,
    maker: Option<JoinHandle<Made>>,
}

impl Provisional {
    /// Whether a filter of ours serves the device for the time being.
    pub(super) fn contains(&self, ifindex: u32, role: Role) -> bool {
        role == Role::Vif && self.devices.contains(&ifindex)
    }
}

impl Drop for Provisional {
    fn drop(&mut self) {
        // A link that is made after this would stand before that of the next instance.
        if let Some(maker) = self.maker.take() {
            drop(maker.join());
        }
    }
}

impl Links {
    /// As [`Links::attach`] of a VIF, and without waiting for a grace period where the device is new.
    pub(super) fn attach_at_once(
        &mut self,
        program: &mut SchedClassifier,
        name: &str,
        ifindex: u32,
        replace: bool,
    ) -> Result<(), AttachError> {
        let key = (ifindex, Role::Vif);
        let is_new =
            self.hook == Hook::Tcx && !self.attached.contains_key(&key) && !self.is_served(ifindex, Role::Vif)?;
        if !is_new {
            return self.attach(program, name, ifindex, Role::Vif, replace);
        }
        let filtered = add_ingress_qdisc(ifindex).map_err(|e| e.to_string());
        let filtered = filtered.and_then(|()| new_filter(program, name, Role::Vif).map_err(|e| e.to_string()));
        if let Err(why) = filtered {
            tracing::debug!(target: "dataplane", "{name} waits for its link, because it takes no filter: {why}");
            return self.attach(program, name, ifindex, Role::Vif, replace);
        }
        self.mark_filter(ifindex, Role::Vif)?;
        self.provisional.devices.insert(ifindex);
        self.attached.insert(key, Attachment { ifindex, name: name.into(), role: Role::Vif, hook: Hook::Clsact });
        self.come_first(program, name, ifindex)
    }

    /// Behind a tcx program of somebody else's the filter is not first: then the link is made now. Looking takes rtnl, too, and nobody has to
    /// wait for it, unless the thread is at work already.
    fn come_first(&mut self, program: &SchedClassifier, name: &str, ifindex: u32) -> Result<(), AttachError> {
        let name = name.to_owned();
        let program = self.descriptor(program)?;
        let make = move || -> Made {
            let is_alone =
                SchedClassifier::query_tcx(&name, TcAttachType::Ingress).is_ok_and(|(_, all)| all.is_empty());
            if is_alone { Made::new() } else { vec![(ifindex, create_link(program.as_fd(), ifindex))] }
        };
        self.take_links(false)?;
        if self.provisional.maker.is_none() {
            return self.start(make);
        }
        for (ifindex, link) in make() {
            match link {
                Ok(link) => self.take_link(ifindex, link)?,
                Err(e) => return Err(pin_error(&self.pins.links(), &e)),
            }
        }
        Ok(())
    }

    /// Another descriptor of a program, for a thread.
    fn descriptor(&self, program: &SchedClassifier) -> Result<OwnedFd, AttachError> {
        let failed = |reason: String| AttachError::Pin { path: self.pins.links(), reason };
        let program = program.fd().map_err(|e| failed(e.to_string()))?;
        program.as_fd().try_clone_to_owned().map_err(|e| failed(e.to_string()))
    }

    fn start(&mut self, make: impl FnOnce() -> Made + Send + 'static) -> Result<(), AttachError> {
        let maker = thread::Builder::new().name("tcx links".to_owned()).spawn(make);
        self.provisional.maker = Some(maker.map_err(|e| pin_error(&self.pins.links(), &e))?);
        Ok(())
    }

    /// Gives devices that a filter serves the links that have been made, and has more made. To be called now and then.
    pub(super) fn make_links(&mut self, program: &SchedClassifier) -> Result<(), AttachError> {
        self.take_links(false)?;
        if self.provisional.maker.is_some() || self.provisional.devices.is_empty() {
            return Ok(());
        }
        let program = self.descriptor(program)?;
        let devices: Vec<u32> = self.provisional.devices.iter().copied().take(LINKS_AT_ONCE).collect();
        self.start(move || {
            devices.into_iter().map(|ifindex| (ifindex, create_link(program.as_fd(), ifindex))).collect()
        })
    }

    /// Takes over what the thread has made. With `wait` it is waited for; else nothing happens while it is at work.
    fn take_links(&mut self, wait: bool) -> Result<(), AttachError> {
        let Some(maker) = self.provisional.maker.take_if(|maker| wait || maker.is_finished()) else { return Ok(()) };
        // There is nothing in it that panics.
        let made = maker.join().unwrap_or_default();
        let mut result = Ok(());
        for (ifindex, link) in made {
            match link {
                Ok(link) => result = result.and(self.take_link(ifindex, link)),
                // A device that is gone is found missing elsewhere; with any other it is tried again, and the filter serves on.
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {}
                Err(e) => tracing::warn!(target: "dataplane", "no tcx link on device {ifindex}: {e}: its filter stays"),
            }
        }
        result
    }

    /// One device goes over from its filter to its link.
    fn take_link(&mut self, ifindex: u32, link: OwnedFd) -> Result<(), AttachError> {
        let pin = Self::pin(&self.pins, ifindex, Role::Vif);
        let failed = |e: io::Error| pin_error(&pin, &e);
        if !self.provisional.devices.contains(&ifindex) || !has_device(link.as_fd()).map_err(failed)? {
            return detach_link(link.as_fd()).map_err(failed);
        }
        if let Err(e) = pin_link(link.as_fd(), &pin) {
            detach_link(link.as_fd()).map_err(failed)?;
            return Err(failed(e));
        }
        self.held.insert((ifindex, Role::Vif), link);
        self.provisional.devices.remove(&ifindex);
        if let Some(attachment) = self.attached.get_mut(&(ifindex, Role::Vif)) {
            attachment.hook = Hook::Tcx;
        }
        // It may have another name by now.
        if let Some(name) = device_name(ifindex) {
            detach_clsact(&name, Role::Vif)?;
        }
        self.unmark_filter(ifindex, Role::Vif)
    }

    /// The device is to be detached: it gets no link any more.
    pub(super) fn forget_provisional(&mut self, ifindex: u32, role: Role) -> Result<(), AttachError> {
        if role != Role::Vif || !self.provisional.devices.remove(&ifindex) {
            return Ok(());
        }
        self.take_links(true)
    }

    /// Likewise, all of them.
    pub(super) fn forget_all_provisional(&mut self) -> Result<(), AttachError> {
        self.provisional.devices.clear();
        self.take_links(true)
    }
}

/// Adds the `ingress` qdisc to a device; one that is there, or clsact, is as good (rtnetlink(7), RTM_NEWQDISC; linux/pkt_sched.h).
fn add_ingress_qdisc(ifindex: u32) -> io::Result<()> {
    const NLMSG_ERROR: u16 = 2;
    const RTM_NEWQDISC: u16 = 36;
    /// NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE.
    const FLAGS: u16 = 1 | 4 | 0x200 | 0x400;
    const TCA_KIND: u16 = 1;
    const TC_H_INGRESS: u32 = 0xffff_fff1;
    const INGRESS_HANDLE: u32 = 0xffff_0000;
    const KIND: &[u8; 8] = b"ingress\0";
    let mut message = Vec::with_capacity(48);
    // struct nlmsghdr: length, type, flags, sequence number, port
    message.extend_from_slice(&48u32.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWQDISC.to_ne_bytes());
    message.extend_from_slice(&FLAGS.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    // struct tcmsg: family, device, handle, parent, info
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&ifindex.to_ne_bytes());
    message.extend_from_slice(&INGRESS_HANDLE.to_ne_bytes());
    message.extend_from_slice(&TC_H_INGRESS.to_ne_bytes());
    message.extend_from_slice(&[0; 4]);
    // struct rtattr: length, type
    message.extend_from_slice(&12u16.to_ne_bytes());
    message.extend_from_slice(&TCA_KIND.to_ne_bytes());
    message.extend_from_slice(KIND);
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(kernel.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let word =
        |at: usize| answer[..length].get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    let kind = answer[..length].get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    match (kind, word(16)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) if -error == libc::EEXIST => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is no acknowledgement")),
    }
}
