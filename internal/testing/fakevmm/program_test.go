//go:build linux

package fakevmm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

const boots = `"boot-source": {"kernel_image_path": "kernel"}`

// configurations are files that both read: most say what one of both could take otherwise.
var configurations = map[string]string{
	"the least":                      `{` + boots + `, "drives": []}`,
	"unknown sections":               `{` + boots + `, "drives": [], "pmem": [{"id": "p", "path_on_host": "none"}], "serial": {"serial_out_path": "none"}, "nonsense": 7}`,
	"an unknown field":               `{` + boots + `, "drives": [], "machine-config": {"vcpu_count": 1, "mem_size_mib": 128, "nonsense": 7}}`,
	"an unknown field of metrics":    `{` + boots + `, "drives": [], "metrics": {"metrics_path": "metrics", "nonsense": 7}}`,
	"no drives":                      `{` + boots + `}`,
	"no boot source":                 `{"drives": []}`,
	"null drives":                    `{` + boots + `, "drives": null}`,
	"a null NIC list":                `{` + boots + `, "drives": [], "network-interfaces": null}`,
	"null sections":                  `{` + boots + `, "drives": [], "machine-config": null, "vsock": null, "balloon": null, "logger": null}`,
	"nothing":                        ``,
	"no object":                      `[]`,
	"an end too early":               `{` + boots + `, "drives": [`,
	"a section twice":                `{` + boots + `, "drives": [], "drives": []}`,
	"another spelling":               `{` + boots + `, "drives": [], "machine_config": {"vcpu_count": 99, "mem_size_mib": 128}}`,
	"lines":                          "{\n" + boots + ",\n\"drives\": [\n 7]}",
	"a drive of no file":             `{` + boots + `, "drives": [{"drive_id": "d", "path_on_host": "none", "is_root_device": false}]}`,
	"an id with a dash":              `{` + boots + `, "drives": [{"drive_id": "d-1.x", "path_on_host": "disk", "is_root_device": false}]}`,
	"two roots":                      `{` + boots + `, "drives": [{"drive_id": "d", "path_on_host": "disk", "is_root_device": true}, {"drive_id": "e", "path_on_host": "disk", "is_root_device": true}]}`,
	"no kernel":                      `{"boot-source": {"kernel_image_path": "none"}, "drives": []}`,
	"a kernel of zeros":              `{"boot-source": {"kernel_image_path": "disk"}, "drives": []}`,
	"an empty initrd path":           `{"boot-source": {"kernel_image_path": "kernel", "initrd_path": ""}, "drives": []}`,
	"33 CPUs":                        `{` + boots + `, "drives": [], "machine-config": {"vcpu_count": 33, "mem_size_mib": 128}}`,
	"a balloon of too much":          `{` + boots + `, "drives": [], "balloon": {"amount_mib": 500, "deflate_on_oom": true}}`,
	"a balloon of large memory":      `{"balloon": {"amount_mib": 200, "deflate_on_oom": true}, ` + boots + `, "drives": [], "machine-config": {"vcpu_count": 1, "mem_size_mib": 256}}`,
	"metadata of no NIC":             `{` + boots + `, "drives": [], "mmds-config": {"network_interfaces": ["eth0"]}}`,
	"a NIC behind its metadata":      `{` + boots + `, "drives": [], "mmds-config": {"network_interfaces": ["eth0"]}, "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0"}]}`,
	"a socket":                       `{` + boots + `, "drives": [], "vsock": {"guest_cid": 3, "uds_path": "vsock"}}`,
	"a socket that is there":         `{` + boots + `, "drives": [], "vsock": {"guest_cid": 3, "uds_path": "disk"}}`,
	"metrics into no file":           `{` + boots + `, "drives": [], "metrics": {"metrics_path": "none"}}`,
	"a log into no file":             `{` + boots + `, "drives": [], "logger": {"log_path": "none"}}`,
	"a template in line":             `{` + boots + `, "drives": [], "cpu-config": {"kvm_capabilities": []}}`,
	"a template in a file":           `{` + boots + `, "drives": [], "cpu-config": "template"}`,
	"a template in no file":          `{` + boots + `, "drives": [], "cpu-config": "none"}`,
	"metrics before a wrong machine": `{` + boots + `, "drives": [], "machine-config": {"vcpu_count": 0, "mem_size_mib": 128}, "metrics": {"metrics_path": "none"}}`,
	"entropy":                        `{` + boots + `, "drives": [], "entropy": {}}`,
}

// commands are command lines, in a directory with a configuration that ends by itself.
var commands = [][]string{
	{"--version"}, {"--version", "--nonsense"}, {"--nonsense"}, {"nonsense"}, {"--id"}, {"--no-api"}, {"--version", "--version"},
	{"--no-api", "--config-file", "config"}, {"--no-api", "--config-file", "config", "--log-path", "none"}, {"--no-api", "--config-file", "config", "--log-path", "log", "--level", "nonsense"},
	{"--no-api", "--config-file", "config", "--log-path", "log", "--level", "Info", "--id", "a-1"}, {"--api-sock", "none/api", "--config-file", "config", "--log-path", "log"},
	{"--api-sock", "disk", "--config-file", "config", "--log-path", "log"}, {"--api-sock", "api", "--config-file", "config", "--log-path", "log", "--id", "a"},
	{"--config-file", "config", "--log-path", "log", "--config-file", "config"}, {"--level", "Info", "--log-path"},
}

// outcome is what a process has left.
type outcome struct {
	code           int
	stdout, stderr string
}

func (o outcome) String() string {
	return fmt.Sprintf("status %d, out %q, err %q", o.code, o.stdout, o.stderr)
}

// machines are a real and a fake firecracker, and directories for them that differ only in what a kernel is.
func (l *lab) machines(t *testing.T, config string) (real, fake *exec.Cmd) {
	t.Helper()
	binary, err := Install(t.TempDir(), Faults{Version: l.version})
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := json.Marshal(Kernel{Text: "x", Reset: true})
	if err != nil {
		t.Fatal(err)
	}
	made := []*exec.Cmd{exec.Command(l.binary), exec.Command(binary)}
	for i, cmd := range made {
		cmd.Dir = t.TempDir()
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		for name, text := range map[string]string{"config": config, "disk": strings.Repeat("\x00", 4096), "log": "", "metrics": "", "template": "{}", "kernel": string(kernel)} {
			if err := os.WriteFile(filepath.Join(cmd.Dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			if err := tinyguest.Write(filepath.Join(cmd.Dir, "kernel"), tinyguest.Program{Text: "x", After: tinyguest.Reset}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return made[0], made[1]
}

// end runs a command to its end.
func end(t *testing.T, cmd *exec.Cmd, args []string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	run := exec.CommandContext(ctx, cmd.Path, args...)
	var stdout, stderr bytes.Buffer
	run.Dir, run.SysProcAttr, run.Stdout, run.Stderr, run.Env = cmd.Dir, cmd.SysProcAttr, &stdout, &stderr, []string{}
	err := run.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{run.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// A configuration file is taken, and refused, alike: sections that nobody knows are ignored by both.
func TestRealConfigurationFilesAlike(t *testing.T) {
	l := newLab(t)
	var names []string
	for name := range configurations {
		names = append(names, name)
	}
	inParallel(names, func(name string) {
		real, fake := l.machines(t, configurations[name])
		args := []string{"--no-api", "--config-file", "config", "--log-path", "log"}
		if r, f := end(t, real, args), end(t, fake, args); r != f {
			t.Errorf("%s\nreal: %v\nfake: %v", name, r, f)
		}
	})
}

func TestRealCommandLinesAlike(t *testing.T) {
	l := newLab(t)
	inParallel(commands, func(args []string) {
		real, fake := l.machines(t, configurations["the least"])
		if r, f := end(t, real, args), end(t, fake, args); r != f {
			t.Errorf("%q\nreal: %v\nfake: %v", args, r, f)
		}
	})
}
