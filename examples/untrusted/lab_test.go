//go:build linux

package main

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/netlab"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// exampleEnv makes the test binary the example.
const exampleEnv = "MICROVM_TEST_EXAMPLE"

func TestMain(m *testing.M) {
	firecracker.Helper()
	if os.Getenv(exampleEnv) != "" {
		main()
		return
	}
	os.Exit(leak.Main(m))
}

// TestLabUntrusted runs the example on a host whose uplink leads to servers.
func TestLabUntrusted(t *testing.T) {
	p := ring.Lab(t)
	lab := netlab.New(t)
	dir := t.TempDir()
	options := firecracker.Options{StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "run"), Slice: leak.Slice(filepath.Base(dir))}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-allow", "echo.example:7")
	cmd.Env = append(os.Environ(), exampleEnv+"=1",
		"MICROVM_FIRECRACKER_BIN="+p.Firecracker, "MICROVM_JAILER_BIN="+p.Jailer, "MICROVM_FIRECRACKER_KERNEL="+p.Vmlinux, "MICROVM_KERNEL_MODULES="+p.Modules,
		"MICROVM_AGENT_BIN="+p.Agent, "MICROVM_IMAGE="+p.Base, "MICROVM_STATE_DIR="+options.StateDir, "MICROVM_SOCKET_DIR="+options.SocketDir,
		"MICROVM_JAILER_CGROUP_PARENT="+options.Slice, "MICROVM_NAMESERVERS="+netip.AddrPortFrom(netlab.DNS, 53).String())
	t.Cleanup(func() {
		err := lab.Host.Do(func() error {
			purge := exec.Command(p.Microvm, "purge", "--yes")
			purge.Env = cmd.Env
			said, err := purge.CombinedOutput()
			t.Logf("purge: %s", said)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := lab.Host.Do(cmd.Start); err != nil { // the process is in the namespace of the thread that starts it
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v", err)
	}
	for _, want := range []string{
		"echo.example port 7: connected\n", "exfiltration.example port 443: no way\n", "1.1.1.1 port 443: no way\n", "169.254.169.254 port 80: no way\n",
		"denied: exfiltration.example, which the rule exfiltration.example would let pass\n",
		"denied: tcp to 1.1.1.1 port 443, which the rule 1.1.1.1:443 would let pass\n",
		"the metadata server would be open by 169.254.169.254:80,",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	t.Log(said.String())
}
