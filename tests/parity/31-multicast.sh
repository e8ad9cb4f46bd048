# Multicast snooping and its options.
ovn-nbctl ls-add sw0 -- set logical_switch sw0 other_config:mcast_snoop=true
ovn-nbctl lsp-add sw0 p1 -- lsp-set-addresses p1 "00:00:00:00:00:01 10.0.0.1"
ovn-nbctl lsp-add sw0 p2 -- lsp-set-addresses p2 unknown
ovn-nbctl lsp-set-options p1 mcast_flood=true
ovn-nbctl lsp-set-options p2 mcast_flood_reports=true
ovn-nbctl set logical_switch sw0 other_config:mcast_flood_unregistered=true
ovn-nbctl set logical_switch sw0 other_config:mcast_querier=true other_config:mcast_eth_src=00:00:00:00:00:fe other_config:mcast_ip4_src=10.0.0.254 other_config:mcast_ip6_src=fe80::1
ovn-nbctl set logical_switch sw0 other_config:mcast_table_size=100000 other_config:mcast_idle_timeout=1 other_config:mcast_query_interval=99999 other_config:mcast_query_max_response=11
ovn-nbctl set logical_switch sw0 other_config:mcast_table_size=10 other_config:mcast_idle_timeout=60 other_config:mcast_query_max_response=4
ovn-nbctl remove logical_switch sw0 other_config mcast_query_interval
ovn-nbctl lsp-set-options p1 -- lsp-set-options p2
ovn-nbctl set logical_switch sw0 other_config:mcast_querier=false
ovn-nbctl set logical_switch sw0 other_config:interconn-ts=ts1
ovn-nbctl set logical_switch sw0 other_config:mcast_flood_unregistered=false
ovn-nbctl set logical_switch sw0 other_config:mcast_snoop=false
ovn-nbctl ls-add quiet -- lsp-add quiet off -- lsp-set-enabled off disabled -- lsp-set-options off mcast_flood=true mcast_flood_reports=true
ovn-nbctl lsp-set-enabled off enabled
