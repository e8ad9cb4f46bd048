//! The root daemon of an Oxbow hypervisor: what stands between OVN's Southbound database, the host's Open_vSwitch database, the
//! kernel's devices and the eBPF dataplane.
//!
//! Everything that decides is plain data in, plain data out, with the time as an argument; everything that touches a socket, the
//! kernel or the clock is in [`netlink`] and [`daemon`].
//!
//! | module | decides |
//! |---|---|
//! | [`config`] | what Open_vSwitch.external_ids ask for |
//! | [`rows`] | the rows the rest reads, independent of the database client |
//! | [`registration`] | Chassis, Encap and Chassis_Private rows of this hypervisor |
//! | [`claim`] | whether this chassis may bind a port |
//! | [`vif`] | the life of every VIF: claim, programming, up, release |
//! | [`activation`] | which frame of a guest brings a migrated port to life here |
//! | [`link`] | the devices of the host, as data |
//! | [`locality`] | which datapaths matter here, hence what to monitor |
//! | [`zones`] | conntrack zone numbers |
//! | [`tunnels`] | which encapsulation leads to which chassis |
//! | [`tunnel_ports`] | the rows that stand for tunnels |
//! | [`generation`] | when `nb_cfg` may be reported |
//! | [`fdb`] | learned addresses: kernel to database and back |
//! | [`backend`] | which dataplane forwards, and whether it may beside an ovs-vswitchd |
//! | [`switchd`] | what ovs-vswitchd does for its database, where there is none |
//! | [`audience`] | who listens to packets, and to which |
//! | [`packet`] | packets as text and text as packets, for people |
//! | [`export`] | the flows of this chassis, printed |
//! | [`dataplane`] | what all this needs of the kernel side |

pub mod activation;
pub mod audience;
pub mod backend;
pub mod claim;
pub mod commands;
pub mod conditions;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod engine;
pub mod export;
pub mod fdb;
pub mod generation;
pub mod kernel;
pub mod link;
pub mod locality;
pub mod named_set;
pub mod netlink;
pub mod packet;
pub mod registration;
pub mod rows;
pub mod stage_names;
pub mod switchd;
pub mod tunnel_ports;
pub mod tunnels;
pub mod view;
pub mod vif;
pub mod world;
pub mod writes;
pub mod zones;
