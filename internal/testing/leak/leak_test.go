//go:build linux

package leak

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/inventory"
)

// childEnv makes the test binary one whose test leaves something behind: its value says what.
const childEnv = "MICROVM_TEST_LEAK"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
	case "nothing", "ends late":
		os.Exit(run(m, patience))
	default:
		os.Exit(run(m, 200*time.Millisecond))
	}
	os.Exit(Main(m))
}

// TestMainFails: what only the garbage collector would close is left behind, as is what nobody ever ends; what ends late is not.
func TestMainFails(t *testing.T) {
	for what, says := range map[string]string{
		"nothing": "", "ends late": "", "abandoned file": "+ descriptor", "abandoned socket": "+ descriptor", "goroutine": "leak.TestChild", "child": "+ child",
	} {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), childEnv+"="+what)
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); (says != "") != errors.As(err, &exit) || !strings.Contains(string(out), says) {
			t.Errorf("%s: %v, want one that says %q:\n%s", what, err, says, out)
		}
	}
}

// TestChild leaves behind what the environment says.
func TestChild(t *testing.T) {
	switch os.Getenv(childEnv) {
	case "ends late":
		f, err := os.Open("/etc/passwd")
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, func() { f.Close() })
	case "abandoned file":
		if _, err := os.Open("/etc/passwd"); err != nil {
			t.Fatal(err)
		}
	case "abandoned socket":
		if _, err := net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	case "goroutine":
		go func() { select {} }()
	case "child":
		if err := exec.Command("sleep", "2").Start(); err != nil {
			t.Fatal(err)
		}
	}
	churn()
}

// churn allocates as a big suite does: what is garbage would be collected.
func churn() {
	for range 1000 {
		runtime.KeepAlive(make([]byte, 1<<16))
	}
}

// TestHoldings: each kind of thing is seen while it is there, and only then.
func TestHoldings(t *testing.T) {
	dir := t.TempDir()
	take := func() inventory.Census {
		census, err := holdings(dir)
		if err != nil {
			t.Fatal(err)
		}
		return census
	}
	for kind, begin := range map[string]func() (end func()){
		"file": func() func() {
			path := filepath.Join(dir, "file")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return func() { os.Remove(path) }
		},
		"descriptor": func() func() {
			f, err := os.Open("/etc/passwd")
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		},
		"child": func() func() {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() {
				cmd.Process.Kill()
				cmd.Wait()
			}
		},
	} {
		before := take()
		end := begin()
		added := inventory.Diff(before, take()).String()
		end()
		if !strings.Contains(added, "+ "+kind+" ") {
			t.Errorf("%s is not seen: %q", kind, added)
		}
		if left := inventory.Diff(before, take()); len(left.Added) > 0 {
			t.Errorf("%s is seen when it is gone: %s", kind, left)
		}
	}
}
