# Every port type a switch can have by itself.
ovn-nbctl ls-add sw0
ovn-nbctl lsp-add sw0 vm1 -- lsp-set-addresses vm1 "00:00:00:00:00:01 10.0.0.1 fd00::1"
ovn-nbctl lsp-add sw0 vm2 -- lsp-set-addresses vm2 "00:00:00:00:00:02 10.0.0.2" -- lsp-set-port-security vm2 "00:00:00:00:00:02 10.0.0.2"
ovn-nbctl lsp-add sw0 ln -- lsp-set-type ln localnet -- lsp-set-addresses ln unknown -- lsp-set-options ln network_name=physnet1
ovn-nbctl lsp-add sw0 ln2 -- lsp-set-type ln2 localnet -- lsp-set-addresses ln2 unknown -- lsp-set-options ln2 network_name=physnet2 ethtype=802.11ad -- set logical_switch_port ln2 tag_request=100
ovn-nbctl set logical_switch_port ln options:localnet_learn_fdb=true
ovn-nbctl lsp-add sw0 lp -- lsp-set-type lp localport -- lsp-set-addresses lp "00:00:00:00:00:11 10.0.0.11 fd00::11"
ovn-nbctl lsp-add sw0 gw -- lsp-set-type gw l2gateway -- lsp-set-addresses gw unknown -- lsp-set-options gw network_name=physnet3 l2gateway-chassis=ch1
ovn-nbctl set logical_switch_port gw tag_request=7
ovn-nbctl ls-add sw1
ovn-nbctl lsp-add sw1 ext -- lsp-set-type ext external -- lsp-set-addresses ext "00:00:00:00:00:21 10.0.1.21 fd00::21"
ovn-nbctl lsp-add sw1 ext2 -- lsp-set-type ext2 external -- lsp-set-addresses ext2 "00:00:00:00:00:22 10.0.1.22"
ovn-nbctl lsp-add sw1 ln3 -- lsp-set-type ln3 localnet -- lsp-set-addresses ln3 unknown -- lsp-set-options ln3 network_name=physnet1
ovn-nbctl ls-add sw2
ovn-nbctl lsp-add sw2 v1 -- lsp-set-addresses v1 "00:00:00:00:00:31 10.0.2.31"
ovn-nbctl lsp-add sw2 v2 -- lsp-set-addresses v2 "00:00:00:00:00:32 10.0.2.32"
ovn-nbctl lsp-add sw2 vip -- lsp-set-type vip virtual -- lsp-set-addresses vip "00:00:00:00:00:3f 10.0.2.100" -- set logical_switch_port vip options:virtual-ip=10.0.2.100 options:virtual-parents=v1,v2,nosuch
ovn-nbctl lsp-add sw2 vip6 -- lsp-set-type vip6 virtual -- set logical_switch_port vip6 options:virtual-ip=fd00::100 options:virtual-parents=v1
ovn-nbctl lsp-add sw2 vt -- lsp-set-type vt vtep -- lsp-set-addresses vt unknown -- lsp-set-options vt vtep-physical-switch=ps vtep-logical-switch=lsw
ovn-nbctl ls-add sw3
ovn-nbctl lsp-add sw3 rem -- lsp-set-type rem remote -- lsp-set-addresses rem "00:00:00:00:00:41 10.0.3.41"
ovn-nbctl lsp-add sw3 weird -- lsp-set-type weird "" -- set logical_switch_port weird type=nonsense addresses='["00:00:00:00:00:42 10.0.3.42"]'
ovn-nbctl lsp-set-enabled vt disabled
ovn-nbctl lsp-set-enabled ln disabled
ovn-nbctl lsp-set-enabled vm2 disabled
ovn-nbctl lsp-set-type lp ""
ovn-nbctl lsp-set-type vm1 localport
ovn-nbctl lsp-del ln2 -- lsp-del ln
