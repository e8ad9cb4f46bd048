# Addresses allotted by northd. mac_prefix is set, so that the MACs are those of the configuration.
ovn-nbctl set nb_global . options:mac_prefix=0a:00:00
ovn-nbctl ls-add sw0 -- set logical_switch sw0 other_config:subnet=192.168.1.0/24
ovn-nbctl --wait=sb lsp-add sw0 d1 -- lsp-set-addresses d1 dynamic
ovn-nbctl --wait=sb lsp-add sw0 d2 -- lsp-set-addresses d2 "dynamic 192.168.1.77"
ovn-nbctl --wait=sb lsp-add sw0 d3 -- lsp-set-addresses d3 "0a:00:00:aa:bb:cc dynamic"
ovn-nbctl --wait=sb set logical_switch sw0 other_config:ipv6_prefix=aef0::
ovn-nbctl --wait=sb lsp-add sw0 d4 -- lsp-set-addresses d4 "dynamic 192.168.1.78 aef0::99"
ovn-nbctl --wait=sb set logical_switch sw0 other_config:exclude_ips="192.168.1.2 192.168.1.5..192.168.1.10"
ovn-nbctl --wait=sb lsp-add sw0 d5 -- lsp-set-addresses d5 dynamic
ovn-nbctl --wait=sb lsp-add sw0 d6 -- lsp-set-addresses d6 dynamic
ovn-nbctl --wait=sb lsp-add sw0 d7 -- set logical_switch_port d7 addresses='["00:00:00:00:00:07 192.168.1.11"]'
ovn-nbctl --wait=sb lsp-add sw0 d8 -- lsp-set-addresses d8 dynamic
ovn-nbctl --wait=sb lsp-del d5
ovn-nbctl --wait=sb lsp-add sw0 d9 -- lsp-set-addresses d9 dynamic
ovn-nbctl --wait=sb set logical_switch sw0 other_config:subnet=10.10.0.0/29
ovn-nbctl --wait=sb lsp-add sw0 da -- lsp-set-addresses da dynamic
ovn-nbctl --wait=sb set logical_switch_port d1 addresses='["00:00:00:00:00:0d 10.10.0.3"]'
ovn-nbctl --wait=sb lsp-set-addresses d1 dynamic
ovn-nbctl --wait=sb remove logical_switch sw0 other_config ipv6_prefix
ovn-nbctl --wait=sb ls-add sw1 -- set logical_switch sw1 other_config:mac_only=true
ovn-nbctl --wait=sb lsp-add sw1 m1 -- lsp-set-addresses m1 dynamic
ovn-nbctl --wait=sb ls-add sw2 -- set logical_switch sw2 other_config:ipv6_prefix=bef0::
ovn-nbctl --wait=sb lsp-add sw2 v1 -- lsp-set-addresses v1 dynamic
ovn-nbctl --wait=sb lsp-add sw2 v2 -- lsp-set-addresses v2 "dynamic bef0::5"
ovn-nbctl --wait=sb lsp-add sw2 v3 -- set logical_switch_port v3 addresses='["0a:00:00:00:11:22 dynamic bef0::6"]'
ovn-nbctl --wait=sb ls-add sw3 -- lsp-add sw3 n1 -- lsp-set-addresses n1 dynamic
ovn-nbctl --wait=sb ls-add sw4 -- set logical_switch sw4 other_config:subnet=172.16.0.8/28 other_config:exclude_ips="172.16.0.1..172.16.0.4"
ovn-nbctl --wait=sb lsp-add sw4 o1 -- lsp-set-addresses o1 dynamic
ovn-nbctl --wait=sb lsp-add sw4 o2 -- lsp-set-addresses o2 "00:00:00:00:00:a2 172.16.0.6" dynamic
ovn-nbctl --wait=sb lsp-add sw4 o3 -- lsp-set-addresses o3 "dynamic 172.16.0.6"
ovn-nbctl --wait=sb set nb_global . options:mac_prefix=0a:00:01
ovn-nbctl --wait=sb remove logical_switch sw0 other_config subnet
