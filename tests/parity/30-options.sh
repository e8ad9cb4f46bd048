# Options of switches and ports.
ovn-nbctl ls-add sw0 -- lsp-add sw0 p1 -- lsp-set-addresses p1 "00:00:00:00:00:01 10.0.0.1 fd00::1" -- lsp-add sw0 p2 -- lsp-set-addresses p2 unknown
ovn-nbctl set logical_switch sw0 other_config:vlan-passthru=true
ovn-nbctl set logical_switch sw0 other_config:vlan-passthru=false
ovn-nbctl set logical_switch sw0 other_config:broadcast-arps-to-all-routers=false
ovn-nbctl set logical_switch sw0 other_config:requested-tnl-key=77
ovn-nbctl set logical_switch_port p1 options:requested-tnl-key=55 options:requested-chassis=ch1 options:iface-id-ver=abc options:qos_max_rate=1000 options:qos_min_rate=500 options:qos_burst=100 options:foo=bar
ovn-nbctl set logical_switch_port p2 options:requested-chassis=ch1,ch2 options:activation-strategy=rarp options:vif-plug-type=representor options:vif-plug-mtu-request=1500 options:vif-plug\\:representor\\:pf-mac=\"00:00:00:00:00:99\" options:hostname=h
ovn-nbctl set logical_switch_port p1 options:requested-encap-ip=10.1.1.1 options:disable_arp_nd_rsp=true
ovn-nbctl set logical_switch_port p2 options:mcast_flood=true
ovn-nbctl set logical_switch_port p2 options:mcast_flood_reports=true
ovn-nbctl set logical_switch_port p1 options:qdisc_queue_id=3
ovn-nbctl set logical_switch_port p1 external_ids:neutron\\:port_name=porty external_ids:x=y
ovn-nbctl set logical_switch_port p1 external_ids:name=nm
ovn-nbctl ls-add sw1 -- set logical_switch sw1 other_config:requested-tnl-key=77
ovn-nbctl lsp-add sw0 p3 -- set logical_switch_port p3 options:requested-tnl-key=55

ovn-nbctl remove logical_switch_port p1 options requested-tnl-key
ovn-nbctl remove logical_switch sw0 other_config requested-tnl-key
ovn-nbctl set nb_global . options:ignore_lsp_down=false
ovn-nbctl set nb_global . options:ignore_lsp_down=true options:use_ct_inv_match=false
ovn-nbctl set nb_global . options:default_acl_drop=true
ovn-nbctl set nb_global . options:debug_drop_domain_id=1 options:debug_drop_collector_set=2
ovn-nbctl clear nb_global . options
ovn-nbctl set nb_global . options:foo=bar options:northd_probe_interval=5000 options:controller_event=true options:mac_prefix=0a:0b:0c options:svc_monitor_mac=0a:00:00:00:00:01
ovn-nbctl set nb_global . name=central ipsec=true external_ids:a=b
ovn-nbctl ls-add sw2 -- set logical_switch sw2 other_config:vlan-passthru=true
ovn-nbctl lsp-add sw2 t1 -- lsp-set-type t1 localnet -- lsp-set-addresses t1 unknown -- lsp-add sw2 t2 -- lsp-set-type t2 vtep -- lsp-add sw2 t3 -- lsp-set-type t3 external -- lsp-add sw2 t4 -- lsp-set-type t4 virtual -- lsp-add sw2 t5 -- lsp-set-type t5 l2gateway -- lsp-add sw2 t6 -- lsp-set-type t6 localport
ovn-nbctl set logical_switch_port t6 addresses='["00:00:00:00:00:06 10.2.0.6 fd00::6"]' -- set logical_switch_port t4 options:virtual-ip=10.2.0.9 options:virtual-parents=t6
ovn-nbctl set logical_switch sw2 other_config:mcast_snoop=true -- set logical_switch sw2 other_config:mcast_flood_unregistered=true
ovn-nbctl lsp-add sw2 net2 -- lsp-set-type net2 localnet -- lsp-set-options net2 network_name=p qos_max_rate=7000
