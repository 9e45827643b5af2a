//! Paths as runtimes make them, collected from their sources and from what people show of their machines.

use expect_test::{Expect, expect};

use super::*;

const ID: &str = "3f4b1c2d5e6f70819a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081";
const OTHER: &str = "d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";

/// What each path tells; `I` stands for an id, `J` for another.
fn check(paths: &[&str], expected: Expect) {
    let lines = paths.iter().map(|path| {
        let full = path.replace('I', ID).replace('J', OTHER);
        let Some(found) = of(&full) else { return format!("{path}\n    none\n") };
        let runtime = found.runtime.map_or("?", Runtime::as_str);
        let short = |text: String| text.replace(ID, "I").replace(OTHER, "J");
        format!("{path}\n    {runtime} id={} pod={}\n", short(found.id), short(found.pod))
    });
    expected.assert_eq(&lines.collect::<String>());
}

#[test]
fn docker() {
    check(
        &[
            "/docker/I",
            "/system.slice/docker-I.scope",
            "/system.slice/docker-I.scope/init.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/docker-I.scope",
            "/docker/J/docker/I",
            "/docker/J/system.slice/docker-I.scope",
            "/system.slice/docker.service",
            "/docker",
            "/docker/buildx",
            "/my-parent/I",
            "/I",
            "/custom.slice/docker-I.scope",
            "/system.slice:docker:I",
        ],
        expect![[r#"
            /docker/I
                docker id=I pod=
            /system.slice/docker-I.scope
                docker id=I pod=
            /system.slice/docker-I.scope/init.scope
                docker id=I pod=
            /user.slice/user-1000.slice/user@1000.service/app.slice/docker-I.scope
                docker id=I pod=
            /docker/J/docker/I
                docker id=I pod=
            /docker/J/system.slice/docker-I.scope
                docker id=I pod=
            /system.slice/docker.service
                none
            /docker
                none
            /docker/buildx
                none
            /my-parent/I
                ? id=I pod=
            /I
                ? id=I pod=
            /custom.slice/docker-I.scope
                docker id=I pod=
            /system.slice:docker:I
                docker id=I pod=
        "#]],
    );
}

#[test]
fn kubernetes() {
    check(
        &[
            "/kubepods/besteffort/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123/I",
            "/kubepods/burstable/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123/I",
            "/kubepods/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123/I",
            "/kubepods/burstable/pod03f3f104321544f29686d4dd1f05a7ed/I",
            "/kubepods/burstable/pod187bff14cccb94f179e943eacce55bb3/I",
            "/kubepods/burstable/pod187bff14cccb94f179e943eacce55bb3/crio-I",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/cri-containerd-I.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/crio-I.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/crio-I.scope/container",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/crio-conmon-I.scope",
            "/kubepods.slice/kubepods-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/docker-I.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod187bff14cccb94f179e943eacce55bb3.slice/cri-containerd-I.scope",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/cri-containerd-I.scope",
            "/docker/J/kubelet/kubepods/besteffort/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123/I",
            "/docker/J/kubelet/kubepods/besteffort/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123",
            "/system.slice/containerd.service/kubepods-burstable-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice:cri-containerd:I",
            "/kubepods.slice/kubepods-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/cri-containerd-J.scope/docker/I",
            "/kubepods.slice/kubepods-burstable.slice",
            "/kubepods/burstable/podinfo",
        ],
        expect![[r#"
            /kubepods/besteffort/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123/I
                ? id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /kubepods/burstable/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123/I
                ? id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /kubepods/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123/I
                ? id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /kubepods/burstable/pod03f3f104321544f29686d4dd1f05a7ed/I
                ? id=I pod=03f3f104321544f29686d4dd1f05a7ed
            /kubepods/burstable/pod187bff14cccb94f179e943eacce55bb3/I
                ? id=I pod=187bff14cccb94f179e943eacce55bb3
            /kubepods/burstable/pod187bff14cccb94f179e943eacce55bb3/crio-I
                cri-o id=I pod=187bff14cccb94f179e943eacce55bb3
            /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/cri-containerd-I.scope
                containerd id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/crio-I.scope
                cri-o id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/crio-I.scope/container
                cri-o id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/crio-conmon-I.scope
                ? id= pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /kubepods.slice/kubepods-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/docker-I.scope
                docker id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod187bff14cccb94f179e943eacce55bb3.slice/cri-containerd-I.scope
                containerd id=I pod=187bff14cccb94f179e943eacce55bb3
            /kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/cri-containerd-I.scope
                containerd id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /docker/J/kubelet/kubepods/besteffort/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123/I
                ? id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /docker/J/kubelet/kubepods/besteffort/pod5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
                ? id= pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /system.slice/containerd.service/kubepods-burstable-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice:cri-containerd:I
                containerd id=I pod=5b3c0e4e-3f8e-11e9-8d3c-0a580af40123
            /kubepods.slice/kubepods-pod5b3c0e4e_3f8e_11e9_8d3c_0a580af40123.slice/cri-containerd-J.scope/docker/I
                docker id=I pod=
            /kubepods.slice/kubepods-burstable.slice
                none
            /kubepods/burstable/podinfo
                none
        "#]],
    );
}

#[test]
fn podman() {
    check(
        &[
            "/machine.slice/libpod-I.scope",
            "/machine.slice/libpod-I.scope/container",
            "/machine.slice/libpod-conmon-I.scope",
            "/machine.slice/machine-libpod_pod_J.slice/libpod-I.scope",
            "/user.slice/user-1049.slice/user@1049.service/user.slice/user-libpod_pod_J.slice/libpod-I.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-I.scope",
            "/user.slice/user-1049.slice/user@1049.service/user.slice/podman-pause-23c87985.scope",
            "/libpod_parent/libpod-I",
            "/libpod_parent/J/libpod-I",
            "/libpod_parent/conmon",
            "/system.slice/web.service/libpod-payload-I",
        ],
        expect![[r#"
            /machine.slice/libpod-I.scope
                podman id=I pod=
            /machine.slice/libpod-I.scope/container
                podman id=I pod=
            /machine.slice/libpod-conmon-I.scope
                none
            /machine.slice/machine-libpod_pod_J.slice/libpod-I.scope
                podman id=I pod=J
            /user.slice/user-1049.slice/user@1049.service/user.slice/user-libpod_pod_J.slice/libpod-I.scope/container
                podman id=I pod=J
            /user.slice/user-1000.slice/user@1000.service/user.slice/libpod-I.scope
                podman id=I pod=
            /user.slice/user-1049.slice/user@1049.service/user.slice/podman-pause-23c87985.scope
                none
            /libpod_parent/libpod-I
                podman id=I pod=
            /libpod_parent/J/libpod-I
                podman id=I pod=J
            /libpod_parent/conmon
                none
            /system.slice/web.service/libpod-payload-I
                podman id=I pod=
        "#]],
    );
}

#[test]
fn others() {
    check(
        &[
            "/default/I",
            "/k8s.io/I",
            "/system.slice/nerdctl-I.scope",
            "/ecs/9781c248-0edd-4cdb-9a93-f63cb662a5d3/I",
            "/ecs/deadbeefdeadbeefdeadbeefdeadbeef/deadbeefdeadbeefdeadbeefdeadbeef-2531612879",
            "/machine.slice/systemd-nspawn@web.service",
            "/machine.slice/systemd-nspawn@web\\x2d1.service/payload/init.scope",
            "/machine.slice/machine-web\\x2d1.scope",
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            "/machine.slice",
            "/lxc/web",
            "/lxc.payload.web/init.scope",
            "/lxc.payload/web",
            "/lxc.monitor.web",
            "/system.slice/nginx.service",
            "/user.slice/user-0.slice/session-1.scope",
            "/system.slice/run-r0123456789abcdef0123456789abcdef.scope",
            "/",
            "",
        ],
        expect![[r#"
            /default/I
                ? id=I pod=
            /k8s.io/I
                ? id=I pod=
            /system.slice/nerdctl-I.scope
                containerd id=I pod=
            /ecs/9781c248-0edd-4cdb-9a93-f63cb662a5d3/I
                ? id=I pod=
            /ecs/deadbeefdeadbeefdeadbeefdeadbeef/deadbeefdeadbeefdeadbeefdeadbeef-2531612879
                ? id=deadbeefdeadbeefdeadbeefdeadbeef-2531612879 pod=
            /machine.slice/systemd-nspawn@web.service
                systemd-nspawn id=web pod=
            /machine.slice/systemd-nspawn@web\x2d1.service/payload/init.scope
                systemd-nspawn id=web-1 pod=
            /machine.slice/machine-web\x2d1.scope
                systemd-nspawn id=web-1 pod=
            /machine.slice/machine-qemu\x2d1\x2dvm.scope
                none
            /machine.slice
                none
            /lxc/web
                lxc id=web pod=
            /lxc.payload.web/init.scope
                lxc id=web pod=
            /lxc.payload/web
                lxc id=web pod=
            /lxc.monitor.web
                none
            /system.slice/nginx.service
                none
            /user.slice/user-0.slice/session-1.scope
                none
            /system.slice/run-r0123456789abcdef0123456789abcdef.scope
                none
            /
                none

                none
        "#]],
    );
}

#[test]
fn labels() {
    let names = [(ID, "web"), ("u", "shop/web-0")]
        .map(|(id, name)| Called { id: id.into(), name: name.into() });
    let container = |id: &str, pod: &str| {
        let made = Container { id: id.into(), pod: pod.into(), ..Container::default() };
        made.called(&names).full_label().into_owned()
    };
    let labels = [
        container(ID, ""),
        container(OTHER, ""),
        container(ID, "u"),
        container(OTHER, "u"),
        container(ID, "v"),
        container("", "u"),
        container("", "v"),
        container("machine", ""),
    ];
    expect![[r#"
        web
        d0e1f2a3b4c5
        shop/web-0/web
        shop/web-0/d0e1f2a3b4c5
        web
        shop/web-0
        v
        machine"#]]
    .assert_eq(&labels.join("\n"));
}
