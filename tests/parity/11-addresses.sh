# Odd addresses: upper case, masks, duplicates, invalid, only IPv6, link-local only, "unknown" among others.
ovn-nbctl ls-add sw0
ovn-nbctl lsp-add sw0 a1 -- lsp-set-addresses a1 "AA:BB:CC:DD:EE:01 10.0.0.1"
ovn-nbctl lsp-add sw0 a2 -- set logical_switch_port a2 addresses='["00:00:00:00:00:02 FD00::2", "garbage"]'
ovn-nbctl lsp-add sw0 a3 -- lsp-set-addresses a3 "00:00:00:00:00:03 fd00:0:0:0:0:0:0:3"
ovn-nbctl lsp-add sw0 a4 -- set logical_switch_port a4 addresses='["00:00:00:00:00:04 10.0.0.4 junk 10.0.0.44"]'
ovn-nbctl lsp-add sw0 a5 -- lsp-set-addresses a5 "00:00:00:00:00:05 fe80::5"
ovn-nbctl lsp-add sw0 a6 -- lsp-set-addresses a6 "00:00:00:00:00:06 10.0.0.6 10.0.0.6"
ovn-nbctl lsp-add sw0 a7 -- set logical_switch_port a7 addresses='["00:00:00:00:00:01 10.0.0.1"]'
ovn-nbctl lsp-add sw0 a8 -- set logical_switch_port a8 addresses='["  00:00:00:00:00:08   10.0.0.8  "]' port_security='["00:00:00:00:00:08 10.0.0.8/24 10.0.1.0/24"]'
ovn-nbctl lsp-add sw0 a9 -- set logical_switch_port a9 addresses='["unknown","00:00:00:00:00:09 10.0.0.9"]' port_security='["bogus"]'
ovn-nbctl lsp-add sw0 a10 -- set logical_switch_port a10 addresses='["01:00:5e:00:00:01 224.0.0.1"]'
ovn-nbctl lsp-add sw0 'odd"name' -- lsp-set-addresses 'odd"name' "00:00:00:00:00:0b 10.0.0.11"
ovn-nbctl lsp-add sw0 'back\slash' -- lsp-set-addresses 'back\slash' unknown
ovn-nbctl lsp-add sw0 a12 -- lsp-set-addresses a12 router
ovn-nbctl lsp-add sw0 a13 -- set logical_switch_port a13 addresses='["dynamic"]'
