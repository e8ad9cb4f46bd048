# DHCP, DNS, meters, QoS, mirrors, connections: rows copied to the southbound database and their flows.
ovn-nbctl ls-add sw0 -- lsp-add sw0 p1 -- lsp-set-addresses p1 "00:00:00:00:00:01 10.0.0.1 fd00::1"
ovn-nbctl meter-add m1 drop 100 kbps 10
ovn-nbctl --fair meter-add m2 drop 50 pktps
ovn-nbctl set-connection ptcp:6641:127.0.0.1 -- set connection . inactivity_probe=60000
ovn-nbctl -- --id=@d create DNS records='{"vm1.ovn.org"="10.0.0.1", "VM2.ovn.org"="10.0.0.2 fd00::2"}' -- add logical_switch sw0 dns_records @d
ovn-nbctl -- --id=@d create DHCP_Options cidr=10.0.0.0/24 options='"server_id"="10.0.0.254" "server_mac"="00:00:00:00:00:fe" "lease_time"="3600" "router"="10.0.0.254"' -- set logical_switch_port p1 dhcpv4_options=@d
ovn-nbctl -- --id=@d create DHCP_Options cidr='"fd00::/64"' options='"server_id"="00:00:00:00:00:fe" "dns_server"="fd00::fe"' -- set logical_switch_port p1 dhcpv6_options=@d
ovn-nbctl qos-add sw0 to-lport 100 ip4 dscp=10
ovn-nbctl qos-add sw0 from-lport 200 ip6 rate=100 burst=10
ovn-nbctl meter-del m1
ovn-nbctl mirror-add mir1 gre 5 to-lport 127.0.0.1
ovn-nbctl lsp-attach-mirror p1 mir1
