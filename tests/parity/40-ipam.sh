# Addresses allotted by northd, one port at a time: the order among several is chance. mac_prefix is set, so that the MACs
# are those of the configuration.
ovn-nbctl set nb_global . options:mac_prefix=0a:00:00
ovn-nbctl ls-add sw0 -- set logical_switch sw0 other_config:subnet=192.168.1.0/24
ovn-nbctl lsp-add sw0 d1 -- lsp-set-addresses d1 dynamic
ovn-nbctl lsp-add sw0 d2 -- lsp-set-addresses d2 "dynamic 192.168.1.77"
ovn-nbctl lsp-add sw0 d3 -- lsp-set-addresses d3 "0a:00:00:aa:bb:cc dynamic"
ovn-nbctl set logical_switch sw0 other_config:ipv6_prefix=aef0::
ovn-nbctl lsp-add sw0 d4 -- lsp-set-addresses d4 "dynamic 192.168.1.78 aef0::99"
ovn-nbctl set logical_switch sw0 other_config:exclude_ips="192.168.1.2 192.168.1.5..192.168.1.10"
ovn-nbctl lsp-add sw0 d5 -- lsp-set-addresses d5 dynamic
ovn-nbctl lsp-add sw0 d6 -- lsp-set-addresses d6 dynamic
ovn-nbctl lsp-add sw0 d7 -- set logical_switch_port d7 addresses='["00:00:00:00:00:07 192.168.1.13"]'
ovn-nbctl lsp-add sw0 d8 -- lsp-set-addresses d8 dynamic
ovn-nbctl lsp-del d5
ovn-nbctl lsp-add sw0 d9 -- lsp-set-addresses d9 dynamic
ovn-nbctl lsp-set-addresses d1 "00:00:00:00:00:0d 192.168.1.200"
ovn-nbctl lsp-set-addresses d1 dynamic
ovn-nbctl lsp-set-addresses d2 "dynamic 192.168.1.99"
ovn-nbctl lsp-set-addresses d3 "0a:00:00:aa:bb:dd dynamic"
ovn-nbctl lsp-set-addresses d4 "dynamic 192.168.1.78"
ovn-nbctl lsp-set-type d9 localport
ovn-nbctl lsp-set-enabled d9 disabled
ovn-nbctl pg-add pgd d1 d2 d3 d4
ovn-nbctl set logical_switch sw0 other_config:exclude_ips=junk
ovn-nbctl set logical_switch sw0 other_config:exclude_ips="192.168.1.300..192.168.1.301 10.0.0.1"
ovn-nbctl remove logical_switch sw0 other_config exclude_ips
ovn-nbctl remove logical_switch sw0 other_config ipv6_prefix
ovn-nbctl ls-add sw1 -- set logical_switch sw1 other_config:mac_only=true
ovn-nbctl lsp-add sw1 m1 -- lsp-set-addresses m1 dynamic
ovn-nbctl ls-add sw2 -- set logical_switch sw2 other_config:ipv6_prefix=bef0::
ovn-nbctl lsp-add sw2 v1 -- lsp-set-addresses v1 dynamic
ovn-nbctl lsp-add sw2 v2 -- lsp-set-addresses v2 "dynamic bef0::5"
ovn-nbctl lsp-add sw2 v3 -- set logical_switch_port v3 addresses='["0a:00:00:00:11:22 dynamic bef0::6"]'
ovn-nbctl set logical_switch sw2 other_config:ipv6_prefix=cef0::
ovn-nbctl ls-add sw3 -- lsp-add sw3 n1 -- lsp-set-addresses n1 dynamic
ovn-nbctl set logical_switch sw3 other_config:subnet=10.3.0.0/16
ovn-nbctl set logical_switch sw3 other_config:subnet=10.4.0.0/16
ovn-nbctl set logical_switch sw3 other_config:subnet=10.4.0.0/30
ovn-nbctl lsp-add sw3 n2 -- lsp-set-addresses n2 dynamic
ovn-nbctl ls-add sw4 -- set logical_switch sw4 other_config:subnet=172.16.0.8/28 other_config:exclude_ips="172.16.0.1..172.16.0.4"
ovn-nbctl lsp-add sw4 o1 -- lsp-set-addresses o1 dynamic
ovn-nbctl lsp-add sw4 o2 -- lsp-set-addresses o2 "00:00:00:00:00:a2 172.16.0.6" dynamic
ovn-nbctl lsp-add sw4 o3 -- lsp-set-addresses o3 "dynamic 172.16.0.6"
ovn-nbctl lsp-del o3
ovn-nbctl set logical_switch_port o2 addresses='["00:00:00:00:00:a2 172.16.0.5"]'
ovn-nbctl lsp-del n2 -- lsp-del v1 -- lsp-del m1 -- lsp-del v2
ovn-nbctl set nb_global . options:mac_prefix=0a:00:01
ovn-nbctl remove logical_switch sw4 other_config subnet
ovn-nbctl lsp-set-addresses d2 "00:00:00:00:00:d2"
ovn-nbctl ls-del sw0
ovn-nbctl ls-add outside -- set logical_switch outside other_config:subnet=10.77.1.0/24 -- lsp-add outside elsewhere -- lsp-set-addresses elsewhere "dynamic 10.78.1.66"
