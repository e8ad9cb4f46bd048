# Chassis come and go; ports are bound; up and requested chassis follow.
ovn-nbctl ls-add sw0 -- lsp-add sw0 p1 -- lsp-set-addresses p1 "00:00:00:00:00:01 10.0.0.1" -- lsp-add sw0 p2 -- lsp-set-addresses p2 unknown
ovn-nbctl lsp-set-options p1 requested-chassis=ch1
ovn-nbctl lsp-set-options p2 requested-chassis=host2,ch1
ovn-sbctl chassis-add ch1 geneve 127.0.0.1
ovn-sbctl chassis-add ch2 geneve 127.0.0.2 -- set chassis ch2 hostname=host2
ovn-sbctl set chassis ch1 other_config:port-up-notif=true other_config:ct-no-masked-label=true other_config:ovn-ct-lb-related=true other_config:mac-binding-timestamp=true
ovn-sbctl lsp-bind p1 ch1
ovn-sbctl set port_binding p1 up=true
ovn-nbctl set nb_global . options:ignore_lsp_down=false
ovn-sbctl set chassis ch2 other_config:port-up-notif=true other_config:ct-no-masked-label=true other_config:ovn-ct-lb-related=true other_config:mac-binding-timestamp=true
ovn-sbctl lsp-unbind p1
ovn-sbctl set port_binding p1 up=false
ovn-sbctl lsp-bind p2 ch2 -- set port_binding p2 up=true
ovn-sbctl chassis-del ch2
ovn-sbctl chassis-del ch1
ovn-nbctl lsp-del p2
ovn-nbctl lsp-add sw0 q1 -- lsp-set-options q1 qos_max_rate=7000 -- lsp-add sw0 q2 -- lsp-set-options q2 qos_burst=5
ovn-sbctl chassis-add ch3 geneve 127.0.0.3
ovn-sbctl lsp-bind q1 ch3
ovn-sbctl lsp-bind q2 ch3
ovn-sbctl lsp-unbind q1
ovn-nbctl lsp-set-options q2
ovn-sbctl lsp-bind q1 ch3
ovn-nbctl lsp-set-options q2 qos_min_rate=1 qdisc_queue_id=9
ovn-nbctl lsp-del q1
ovn-sbctl chassis-add ch4 vxlan 127.0.0.4
ovn-nbctl ls-add swx -- lsp-add swx px
ovn-sbctl chassis-del ch4
