# For tests that need hosts to log in to: ssh_up starts an sshd with throw-away keys, and puts an ssh that goes there for every host
# name in front of PATH.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need sshd openssh-server
need ssh openssh-client
made_run=false
ssh_up() {
    local at=$dir/ssh
    mkdir -m 700 "$at" "$dir/bin"
    ssh-keygen -q -t ed25519 -N '' -f "$at/host" && ssh-keygen -q -t ed25519 -N '' -f "$at/user" || skip "ssh-keygen makes no keys"
    sshd_port=$(free_port)
    printf '%s\n' "Port $sshd_port" "ListenAddress 127.0.0.1" "HostKey $at/host" "AuthorizedKeysFile $at/user.pub" "PidFile none" \
        "UsePAM no" "StrictModes no" "PasswordAuthentication no" "PermitRootLogin prohibit-password" \
        "SetEnv PATH=$BUILD_DIR/apps:/usr/bin:/bin OMPI_MCA_oob_tcp_if_include=lo" >"$at/sshd_config"
    printf '%s\n' "HostName 127.0.0.1" "Port $sshd_port" "User $(id -un)" "IdentityFile $at/user" "IdentitiesOnly yes" \
        "UserKnownHostsFile $at/known" "StrictHostKeyChecking accept-new" "HostKeyAlias fabric" "LogLevel ERROR" >"$at/config"
    printf '#!/bin/sh\nexec %s -F %s "$@"\n' "$(command -v ssh)" "$at/config" >"$dir/bin/ssh"
    chmod 755 "$dir/bin/ssh"
    [ "$(id -u)" != 0 ] || [ -d /run/sshd ] || { mkdir -m 755 /run/sshd && made_run=true; } # it wants that, whatever its configuration says
    serve "$at/log" 'Server listening' "$(command -v sshd)" -D -e -f "$at/sshd_config"
    PATH=$dir/bin:$PATH
    ssh -n node1 true 2>"$at/why" || skip "sshd lets nobody in here: $(cat "$at/why") $(tail -1 "$at/log")"
}
more_cleanup() { $made_run && rmdir /run/sshd; }
