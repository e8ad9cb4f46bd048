//! Rows that do not depend on the network: definitions of DHCP options, roles and permissions.

use oxbow_incr::Cx;
use oxbow_schema::{nb, sb};

use crate::program::{Compiler, Output};
use crate::source::{IndexKey, Members, TableId};
use crate::store::{DesiredRow, Key, RowKey, Value};

/// Unit `definitions`.
pub(crate) fn compute(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>) -> Output {
    // Nothing is written before there is a northbound database to serve.
    if cx.read(&Members(IndexKey::Table(TableId::of(nb::nb_global::TABLE)))).is_empty() {
        return Output::Empty;
    }
    let mut rows = Vec::new();
    for &(name, code, kind) in compiler.profile.dhcp_options {
        use sb::dhcp_options as table;
        rows.push(
            DesiredRow::new(table::TABLE, Key::Numbered(code, name.into()))
                .set(table::NAME, name)
                .set(table::CODE, code)
                .set(table::TYPE, kind),
        );
    }
    for &(name, code, kind) in compiler.profile.dhcpv6_options {
        use sb::dhcpv6_options as table;
        rows.push(
            DesiredRow::new(table::TABLE, Key::Numbered(code, name.into()))
                .set(table::NAME, name)
                .set(table::CODE, code)
                .set(table::TYPE, kind),
        );
    }
    let mut permissions = Vec::new();
    for permission in compiler.profile.rbac {
        use sb::rbac_permission as table;
        let key = RowKey::new(table::TABLE, Key::Text(permission.table.into()));
        permissions.push((permission.table.into(), key.clone()));
        rows.push(
            DesiredRow { key, columns: Vec::new() }
                .set(table::TABLE_COLUMN, permission.table)
                .set(table::AUTHORIZATION, permission.authorization.iter().copied())
                .set(table::INSERT_DELETE, permission.insert_delete)
                .set(table::UPDATE, permission.update.iter().copied()),
        );
    }
    rows.push(
        DesiredRow::new(sb::rbac_role::TABLE, Key::Text("ovn-controller".into()))
            .set(sb::rbac_role::NAME, "ovn-controller")
            .value(sb::rbac_role::PERMISSIONS.any(), Value::MapRefs(permissions)),
    );
    Output::Rows(rows)
}
