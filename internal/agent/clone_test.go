//go:build linux

package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// renewed is what a renewal did to a system that is none.
type renewed struct {
	clock   time.Time
	entropy []byte
	name    string
}

// newClone returns an agent whose system is below a directory.
func newClone(t *testing.T) (h *host, did *renewed, root string) {
	t.Helper()
	did, root = &renewed{}, t.TempDir()
	h = newHost(t, Options{Secrets: memory(t)})
	h.server.options.First = true // what changes the system, but not who reaps
	h.server.flush = func() {}
	h.server.system = system{
		setClock:    func(t time.Time) error { did.clock = t; return nil },
		addEntropy:  func(b []byte) error { did.entropy = bytes.Clone(b); return nil },
		setHostname: func(n string) error { did.name = n; return nil },
		root:        root,
	}
	return h, did, root
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

const machineID = "0123456789abcdef0123456789abcdef"

func renewal() wire.Renew {
	return wire.Renew{
		Token: "t1", Unix: time.Duration(time.Unix(1_700_000_000, 5).UnixNano()), Entropy: bytes.Repeat([]byte{7}, 64), MachineID: machineID, Hostname: "clone-1", Generation: "g1",
		Env: map[string]string{"A": "b"}, Secrets: map[string][]byte{"key": []byte("value")},
	}
}

func (h *host) renew(request wire.Renew) map[string]wire.RenewedItem {
	h.t.Helper()
	text, _ := json.Marshal(request)
	status, answer := h.ask("POST", wire.PathRenew, "", string(text))
	var all wire.Renewed
	if err := json.Unmarshal(answer, &all); status != 200 || err != nil {
		h.t.Fatalf("%d, %s, %v", status, answer, err)
	}
	items := map[string]wire.RenewedItem{}
	for _, item := range all.Items {
		items[item.Item] = item
	}
	return items
}

func TestRenew(t *testing.T) {
	h, did, root := newClone(t)
	write(t, filepath.Join(root, machineIDFile), "old\n", 0o444)
	write(t, filepath.Join(root, hooksDir, "10-app"), "#!/bin/sh\necho hook of $MICROVM_GENERATION $MICROVM_HOSTNAME; exit 0\n", 0o755)
	write(t, filepath.Join(root, hooksDir, "20-fails"), "#!/bin/sh\necho no >&2; exit 3\n", 0o755)
	write(t, filepath.Join(root, hooksDir, "README"), "no program", 0o644)
	items := h.renew(renewal())
	for name, want := range map[string]wire.RenewedItem{
		"clock": {Done: true, Mandatory: true}, "entropy": {Done: true, Mandatory: true, Detail: "64 bytes"}, "machine-id": {Done: true, Mandatory: true, Detail: machineID},
		"hostname": {Done: true, Mandatory: true, Detail: "clone-1"}, "generation": {Done: true, Mandatory: true, Detail: "g1"}, "environment": {Done: true, Mandatory: true, Detail: "1 set"},
		"secrets": {Done: true, Mandatory: true, Detail: "1 set"}, "ssh-host-keys": {Detail: "there are none"}, "hook 10-app": {Done: true, Detail: "hook of g1 clone-1"},
		"hook 20-fails": {Detail: "no", Error: "it ended with status 3: no"},
	} {
		got := items[name]
		if name == "clock" {
			want.Detail = got.Detail
		}
		if want.Item = name; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		delete(items, name)
	}
	if len(items) > 0 {
		t.Errorf("more items: %+v", items)
	}
	if late := did.clock.Sub(time.Unix(1_700_000_000, 5)); late < 0 || late > patience || len(did.entropy) != 64 || did.name != "clone-1" {
		t.Errorf("did %+v", did)
	}
	for file, want := range map[string]string{machineIDFile: machineID + "\n", generationFile: "g1\n"} {
		if text, err := os.ReadFile(filepath.Join(root, file)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", file, text, err)
		}
	}
	if env := h.server.env.list(); !slices.Equal(env, []string{"A=b"}) {
		t.Errorf("environment %q", env)
	}
	if names, err := h.server.secrets.names(); err != nil || !slices.Equal(names, []string{"key"}) {
		t.Errorf("secrets %q, %v", names, err)
	}
}

// TestRenewFails: what is mandatory and fails is told, and so is the rest; what is not asked for is left.
func TestRenewFails(t *testing.T) {
	h, did, root := newClone(t)
	h.server.system.addEntropy = func([]byte) error { return errors.New("no generator") }
	request := renewal()
	request.MachineID, request.Hostname, request.Env, request.Secrets = "", "", nil, nil
	write(t, filepath.Join(root, hooksDir, "10.required"), "#!/bin/sh\nexit 1\n", 0o755)
	items := h.renew(request)
	if got := items["entropy"]; got.Done || !got.Mandatory || got.Error != "no generator" {
		t.Errorf("entropy %+v", got)
	}
	if got := items["hook 10.required"]; got.Done || !got.Mandatory || got.Error == "" {
		t.Errorf("hook %+v", got)
	}
	for _, name := range []string{"machine-id", "hostname", "environment", "secrets"} {
		if got := items[name]; got.Done || got.Error != "" || got.Detail == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if !items["generation"].Done || did.name != "" {
		t.Errorf("generation %+v, host name %q", items["generation"], did.name)
	}
}

func TestRenewalsThatMakeNoSense(t *testing.T) {
	h, did, _ := newClone(t)
	for _, spoil := range []func(*wire.Renew){
		func(r *wire.Renew) { r.Token = "" }, func(r *wire.Renew) { r.Generation = "a/b" }, func(r *wire.Renew) { r.Unix = -1 }, func(r *wire.Renew) { r.Entropy = make([]byte, 31) },
		func(r *wire.Renew) { r.Entropy = make([]byte, wire.MaxEntropy+1) }, func(r *wire.Renew) { r.MachineID = strings.Repeat("0", 32) }, func(r *wire.Renew) { r.MachineID = "A" + machineID[1:] },
		func(r *wire.Renew) { r.Hostname = "-" },
	} {
		request := renewal()
		spoil(&request)
		text, _ := json.Marshal(request)
		h.refused(wire.PathRenew, string(text), wire.CodeInvalid)
	}
	for _, body := range []string{`{"token": "", "lease_ns": 1}`, `{"token": "t", "lease_ns": 0}`, `{"token": "t", "lease_ns": 1800000000001}`} {
		h.refused(wire.PathFreeze, body, wire.CodeInvalid)
	}
	h.refused(wire.PathFreeze, `{"token": "t", "lease_ns": 1000}`, wire.CodeDenied) // it has no cgroup
	if !did.clock.IsZero() {
		t.Error("the clock was set")
	}
	h.renew(renewal())
}

// TestHostFreeze makes what a command has started stand, with the kernel's own freezer.
func TestHostFreeze(t *testing.T) {
	slice, err := cgroup.Open(leak.Slice("agent"))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := slice.NewLeaf("workload")
	if err != nil {
		t.Fatal(err)
	}
	root, err := cgroup.Root()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the agent's end
		if err := errors.Join(leaf.End(), slice.Remove()); err != nil {
			t.Error(err)
		}
	})
	h := newHost(t, Options{Workload: filepath.Join(root, leaf.Path())})
	h.server.options.First, h.server.flush = true, func() {}
	count := filepath.Join(t.TempDir(), "count")
	size := func() int64 {
		info, err := os.Stat(count)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	grows := func() bool {
		before := size()
		for begin := time.Now(); time.Since(begin) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
			if size() > before {
				return true
			}
		}
		return false
	}
	ask := func(path, body string) {
		t.Helper()
		if status, answer := h.ask("POST", path, "", body); status != 200 {
			t.Fatalf("%s: %d, %s", path, status, answer)
		}
	}
	ask(wire.PathExec, `{"id": "counter", "nonce": "n", "detached": true, "argv": ["sh", "-c", "while :; do echo >>`+count+`; done"]}`)
	eventually(t, "it counts", func() bool { return size() > 0 })
	for range 3 {
		ask(wire.PathFreeze, `{"token": "t1", "lease_ns": 60000000000}`)
		if grows() {
			t.Error("it goes on while it is frozen")
		}
		ask(wire.PathThaw, `{"token": "other"}`)
		if grows() {
			t.Error("a thaw of another token lets it go on")
		}
		ask(wire.PathFreeze, `{"token": "t2", "lease_ns": 60000000000}`) // another host's
		ask(wire.PathThaw, `{"token": "t1"}`)
		if grows() {
			t.Error("a thaw of the token before lets it go on")
		}
		ask(wire.PathThaw, `{"token": "t2"}`)
		eventually(t, "it goes on", grows)
	}
	ask(wire.PathFreeze, `{"token": "t3", "lease_ns": 300000000}`)
	eventually(t, "it goes on after the lease", grows)
	ask(wire.PathFreeze, `{"token": "t4", "lease_ns": 60000000000}`)
	started := make(chan error, 1)
	go func() {
		_, err := h.server.find(&wire.Exec{ID: "late", Argv: []string{"/bin/true"}})
		if err == nil {
			h.server.work.Done()
		}
		started <- err
	}()
	select {
	case err := <-started:
		t.Errorf("a command was started while all stands: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	ask(wire.PathThaw, `{"token": "t4"}`)
	if err := <-started; err != nil {
		t.Errorf("the command that waited: %v", err)
	}
	ask(wire.PathSignal, `{"id": "counter", "signal": 9}`)
}
