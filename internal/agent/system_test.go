//go:build linux

package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

func TestTheFirstProcessAloneChangesTheSystem(t *testing.T) {
	random := bytes.Repeat([]byte{7}, 32)
	to := time.Unix(1_700_000_000, 5)
	requests := map[string]any{wire.PathClock: wire.Clock{Unix: time.Duration(to.UnixNano())}, wire.PathEntropy: wire.Entropy{Data: random}, wire.PathHostname: wire.Hostname{Name: "one.two-3"}}
	for _, first := range []bool{false, true} {
		h := newHost(t, Options{First: first})
		var clock time.Time
		var entropy []byte
		var name string
		h.server.system = system{
			setClock:    func(t time.Time) error { clock = t; return nil },
			addEntropy:  func(b []byte) error { entropy = bytes.Clone(b); return nil },
			setHostname: func(n string) error { name = n; return nil },
		}
		for path, body := range requests {
			text, _ := json.Marshal(body)
			status, answer := h.ask("POST", path, "", string(text))
			if first != (status == 200) || !first && !strings.Contains(string(answer), wire.CodeDenied) {
				t.Errorf("first %v, %s: %d, %s", first, path, status, answer)
			}
			var skew wire.Skew
			if err := json.Unmarshal(answer, &skew); first && path == wire.PathClock && (err != nil || skew.Skew < time.Hour || skew.Skew > time.Since(to)) {
				t.Errorf("skew %v, %v", skew.Skew, err)
			}
		}
		if clock.Equal(to) != first || bytes.Equal(entropy, random) != first || (name == "one.two-3") != first {
			t.Errorf("first %v: %v, %v, %q", first, clock, entropy, name)
		}
	}
}

func TestChangesThatMakeNoSense(t *testing.T) {
	h := newHost(t, Options{First: true})
	never := errors.New("never")
	h.server.system = system{
		setClock:    func(time.Time) error { return syscall.EPERM },
		addEntropy:  func([]byte) error { t.Error("entropy"); return never },
		setHostname: func(string) error { t.Error("host name"); return never },
	}
	text, _ := json.Marshal(wire.Entropy{Data: make([]byte, wire.MaxEntropy+1)})
	for _, tc := range [][3]string{
		{wire.PathClock, `{"unix_ns": -1}`, wire.CodeInvalid}, {wire.PathClock, `{"unix_ns": 1e30}`, wire.CodeInvalid}, {wire.PathClock, `{"unix_ns": 1}`, wire.CodeDenied},
		{wire.PathEntropy, `{}`, wire.CodeInvalid}, {wire.PathEntropy, string(text), wire.CodeInvalid}, {wire.PathHostname, `{}`, wire.CodeInvalid},
		{wire.PathHostname, `{"name": "-a"}`, wire.CodeInvalid}, {wire.PathHostname, `{"name": "a b"}`, wire.CodeInvalid},
		{wire.PathHostname, `{"name": "` + strings.Repeat("a", 65) + `"}`, wire.CodeInvalid},
	} {
		h.refused(tc[0], tc[1], tc[2])
	}
}

// TestHostEntropyIsAdded adds some to this kernel's generator, which harms nobody.
func TestHostEntropyIsAdded(t *testing.T) {
	data := bytes.Repeat([]byte{1, 2, 3, 4}, wire.MaxEntropy/4)
	err := addEntropy(data)
	if os.Getuid() != 0 {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("without privilege: %v", err)
		}
		return
	}
	if err != nil {
		t.Error(err)
	}
	if !bytes.Equal(data[:4], []byte{1, 2, 3, 4}) {
		t.Error("the caller's bytes were changed")
	}
}

// namedHelper makes the test's program one that names its host, in a namespace of its own.
const namedHelper = "MICROVM_TEST_NAMED"

func TestHostNameIsSet(t *testing.T) {
	if name := os.Getenv(namedHelper); name != "" {
		err := nameHost(name)
		got, err2 := os.Hostname()
		if err := errors.Join(err, err2); err != nil || got != name {
			t.Errorf("%q, %v", got, err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("a namespace takes root")
	}
	before, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHostNameIsSet$")
	cmd.Env = append(os.Environ(), namedHelper+"=another")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if after, err := os.Hostname(); err != nil || after != before {
		t.Errorf("this host is %q, was %q, %v", after, before, err)
	}
}

// TestTheClockIsRefusedWhatItCanNotBe sets nothing: the kernel refuses a time that is none.
func TestTheClockIsRefusedWhatItCanNotBe(t *testing.T) {
	if err := setClock(time.Unix(-1, 0)); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
		t.Errorf("error %v", err)
	}
}
