# ACLs of switches and port groups: plain, then tracked, and all that changes with that.
ovn-nbctl ls-add sw0 -- lsp-add sw0 p1 -- lsp-set-addresses p1 "00:00:00:00:00:01 10.0.0.1"
ovn-nbctl lsp-add sw0 ln -- lsp-set-type ln localnet -- lsp-set-options ln network_name=physnet -- lsp-set-addresses ln unknown
ovn-nbctl ls-add sw1 -- lsp-add sw1 p2 -- lsp-set-addresses p2 "00:00:00:00:00:02 10.0.0.2"
ovn-nbctl acl-add sw0 from-lport 1000 'ip4 && inport == "p1"' allow
ovn-nbctl acl-add sw0 to-lport 1001 'udp' drop
ovn-nbctl acl-add sw0 from-lport 1002 'tcp.dst == 1' reject
ovn-nbctl acl-add sw0 to-lport 1002 'tcp.dst == 2' reject
ovn-nbctl acl-add sw0 from-lport 1003 'tcp.dst == 3' allow-stateless
ovn-nbctl --apply-after-lb acl-add sw0 from-lport 1003 'tcp.dst == 13' drop
ovn-nbctl --log --severity=info --name=first acl-add sw0 to-lport 1004 'tcp.dst == 4' drop
ovn-nbctl --log acl-add sw0 to-lport 1005 'tcp.dst == 5' reject
ovn-nbctl --log acl-add sw0 to-lport 1006 'tcp.dst == 6' allow
ovn-nbctl set NB_Global . options:default_acl_drop=true
ovn-nbctl acl-add sw0 from-lport 1007 'tcp.dst == 7' allow-related
ovn-nbctl remove NB_Global . options default_acl_drop
ovn-nbctl --label=77 acl-add sw0 to-lport 1008 'tcp.dst == 8' allow-related
ovn-nbctl --label=78 --log acl-add sw0 to-lport 1009 'tcp.dst == 9' allow-related
ovn-nbctl --apply-after-lb acl-add sw0 from-lport 1010 'tcp.dst == 10' allow-related
ovn-nbctl --apply-after-lb acl-add sw0 from-lport 1011 'tcp.dst == 11' reject
ovn-nbctl --log --meter=unknown-meter acl-add sw0 to-lport 1012 'tcp.dst == 12' drop
ovn-nbctl acl-add sw0 to-lport 1013 'tcp.dst == 12' allow-stateless
ovn-nbctl --log acl-add sw0 to-lport 1014 'tcp.dst == 14' allow-stateless
ovn-nbctl --id=@d create DNS records=a=10.0.0.5 -- add logical_switch sw0 dns_records @d
ovn-nbctl --id=@d create DHCP_Options cidr=10.0.0.0/24 options='server_id="10.0.0.9" server_mac="00:00:00:00:00:99" lease_time="100"' -- set logical_switch_port p1 dhcpv4_options=@d
ovn-nbctl set NB_Global . options:use_ct_inv_match=false
ovn-nbctl remove NB_Global . options use_ct_inv_match
ovn-nbctl set NB_Global . options:debug_drop_domain_id=1 options:debug_drop_collector_set=2
ovn-nbctl remove NB_Global . options debug_drop_domain_id -- remove NB_Global . options debug_drop_collector_set
ovn-sbctl chassis-add ch1 geneve 192.0.2.1
ovn-sbctl set chassis ch1 other_config:ct-no-masked-label=true
ovn-sbctl chassis-del ch1
ovn-nbctl pg-add pg0 p1 p2
ovn-nbctl acl-add pg0 to-lport 2000 'outport == @pg0 && ip4.src == $pg0_ip4' allow-related
ovn-nbctl acl-add pg0 from-lport 2001 'inport == @pg0' drop
ovn-nbctl pg-set-ports pg0 p1
ovn-nbctl pg-set-ports pg0 p2
ovn-nbctl acl-del sw0
ovn-nbctl lsp-del p2
ovn-nbctl pg-set-ports pg0 p1
ovn-nbctl pg-del pg0
