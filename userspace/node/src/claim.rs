//! Whether this chassis may bind a port (R-30; ovn-nb(5) `requested-chassis`, `iface-id-ver`; ovn-architecture(7), Life Cycle of a VIF).

use crate::rows::{Interface, PortBinding};

/// In what role a chassis binds a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The port's chassis.
    Main,
    /// One of the further chassis, while a virtual machine migrates.
    Additional,
}

/// Why a port is not bound here although its interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `options:requested-chassis` names others.
    RequestedElsewhere(String),
    /// `options:iface-id-ver` and the interface's differ.
    Version {
        /// What the port asks for.
        port: String,
        /// What the interface has.
        interface: Option<String>,
    },
    /// The port's kind is not bound by an interface.
    Kind(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::RequestedElsewhere(requested) => write!(f, "requested-chassis is {requested}"),
            Refusal::Version { port, interface: Some(interface) } => {
                write!(f, "iface-id-ver {interface} of the interface is not the port's {port}")
            }
            Refusal::Version { port, interface: None } => {
                write!(f, "the interface has no iface-id-ver, the port wants {port}")
            }
            Refusal::Kind(kind) => write!(f, "ports of type {kind} are not bound by an interface"),
        }
    }
}

/// Who we are, for [`role`].
#[derive(Clone, Copy, Debug)]
pub struct Me<'a> {
    /// Chassis name.
    pub system_id: &'a str,
    /// Host name.
    pub hostname: &'a str,
}

/// The role that `options:requested-chassis` gives us: a comma list of chassis names or host names, of which the first is the main one.
/// No list, or an empty one: whoever has the interface is the main one.
pub fn role(port: &PortBinding, me: Me<'_>) -> Result<Role, Refusal> {
    let requested = port.options.get("requested-chassis").map_or("", String::as_str);
    let mut any = false;
    for (position, name) in requested.split(',').map(str::trim).filter(|name| !name.is_empty()).enumerate() {
        any = true;
        if name == me.system_id || name == me.hostname {
            return Ok(if position == 0 { Role::Main } else { Role::Additional });
        }
    }
    if any { Err(Refusal::RequestedElsewhere(requested.to_owned())) } else { Ok(Role::Main) }
}

/// Whether `interface` may bind `port`, the requested chassis aside.
pub fn check_interface(port: &PortBinding, interface: &Interface) -> Result<(), Refusal> {
    if !matches!(port.kind.as_str(), "" | "localport") {
        return Err(Refusal::Kind(port.kind.clone()));
    }
    match port.options.get("iface-id-ver") {
        Some(wanted) if !wanted.is_empty() => {
            let has = interface.external_ids.get("iface-id-ver");
            if has == Some(wanted) {
                Ok(())
            } else {
                Err(Refusal::Version { port: wanted.clone(), interface: has.cloned() })
            }
        }
        _ => Ok(()),
    }
}

/// Whether a chassis is the one that serves a gateway-like port, by the option that names it: `l2gateway-chassis`, `l3gateway-chassis`.
pub fn is_gateway_here(port: &PortBinding, me: Me<'_>) -> bool {
    let option = match port.kind.as_str() {
        "l2gateway" => "l2gateway-chassis",
        "l3gateway" => "l3gateway-chassis",
        _ => return false,
    };
    port.options.get(option).is_some_and(|name| name == me.system_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Me<'static> = Me { system_id: "hv1", hostname: "hv1.example" };

    fn port(options: &[(&str, &str)]) -> PortBinding {
        PortBinding {
            logical_port: "lp".into(),
            options: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn requested_chassis_is_a_list_of_names_or_host_names() {
        for (list, expected) in [
            ("", Some(Role::Main)),
            ("hv1", Some(Role::Main)),
            ("hv1.example", Some(Role::Main)),
            ("hv1,hv2", Some(Role::Main)),
            ("hv2,hv1", Some(Role::Additional)),
            ("hv2, hv1.example", Some(Role::Additional)),
            ("hv2", None),
            ("hv10,hv2", None),
        ] {
            assert_eq!(role(&port(&[("requested-chassis", list)]), ME).ok(), expected, "{list:?}");
        }
        assert_eq!(role(&port(&[]), ME), Ok(Role::Main));
    }

    #[test]
    fn iface_id_ver_must_be_equal_only_when_the_port_has_one() {
        let mut interface = Interface::default();
        assert!(check_interface(&port(&[]), &interface).is_ok());
        assert!(check_interface(&port(&[("iface-id-ver", "7")]), &interface).is_err());
        interface.external_ids.insert("iface-id-ver".into(), "8".into());
        assert!(check_interface(&port(&[]), &interface).is_ok());
        assert!(check_interface(&port(&[("iface-id-ver", "7")]), &interface).is_err());
        interface.external_ids.insert("iface-id-ver".into(), "7".into());
        assert!(check_interface(&port(&[("iface-id-ver", "7")]), &interface).is_ok());
    }

    #[test]
    fn only_vif_kinds_are_bound_by_interfaces() {
        for kind in ["", "localport"] {
            let port = PortBinding { kind: kind.into(), ..port(&[]) };
            assert!(check_interface(&port, &Interface::default()).is_ok(), "{kind}");
        }
        for kind in
            ["patch", "l3gateway", "localnet", "l2gateway", "vtep", "chassisredirect", "virtual", "external", "remote"]
        {
            let port = PortBinding { kind: kind.into(), ..port(&[]) };
            assert!(check_interface(&port, &Interface::default()).is_err(), "{kind}");
        }
    }

    #[test]
    fn gateway_ports_belong_to_the_chassis_their_option_names() {
        let of = |kind: &str, option: &str| PortBinding { kind: kind.into(), ..port(&[(option, "hv1")]) };
        assert!(is_gateway_here(&of("l2gateway", "l2gateway-chassis"), ME));
        assert!(is_gateway_here(&of("l3gateway", "l3gateway-chassis"), ME));
        assert!(!is_gateway_here(&of("l2gateway", "l3gateway-chassis"), ME));
        assert!(!is_gateway_here(&of("patch", "l3gateway-chassis"), ME));
    }
}
