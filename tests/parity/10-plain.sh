# Two switches with static ports, port security, several and no addresses.
ovn-nbctl ls-add sw0
ovn-nbctl lsp-add sw0 p1 -- lsp-set-addresses p1 "00:00:00:00:00:01 10.0.0.1 aef0::1" -- lsp-set-port-security p1 "00:00:00:00:00:01 10.0.0.1"
ovn-nbctl lsp-add sw0 p2 -- lsp-set-addresses p2 unknown
ovn-nbctl ls-add sw1
ovn-nbctl lsp-add sw1 p3 -- lsp-set-addresses p3 "00:00:00:00:00:03 10.0.0.3 10.0.0.33 fd00::3 fe80::3" "00:00:00:00:01:03 10.0.1.3"
ovn-nbctl lsp-add sw1 p4
ovn-nbctl lsp-add sw1 p5 -- lsp-set-addresses p5 "00:00:00:00:00:05"
ovn-nbctl lsp-add sw1 p6 -- lsp-set-addresses p6 "00:00:00:00:00:06 10.0.0.6" unknown
ovn-nbctl lsp-add sw1 p7 -- lsp-set-addresses p7 "00:00:00:00:00:07 10.0.0.7/24 fd00::7/64" -- lsp-set-port-security p7 "00:00:00:00:00:07 10.0.0.7/24 fd00::7" "00:00:00:00:00:17"
ovn-nbctl lsp-add sw1 p8 -- lsp-set-addresses p8 unknown -- lsp-set-port-security p8 "00:00:00:00:00:08"
ovn-nbctl lsp-set-enabled p3 disabled
ovn-nbctl lsp-set-enabled p6 disabled
ovn-nbctl lsp-set-enabled p2 disabled
ovn-nbctl lsp-set-enabled p2 enabled
ovn-nbctl lsp-del p5
ovn-nbctl ls-add sw2 -- lsp-add sw2 p9 -- lsp-set-addresses p9 "00:00:00:00:00:09 10.0.2.9"
ovn-nbctl ls-del sw1
ovn-nbctl set logical_switch sw0 external_ids:neutron\\:network_name=net0 external_ids:foo=bar
ovn-nbctl set logical_switch sw0 name=renamed
