//go:build linux

package pager

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// patience is for what takes milliseconds.
const patience = 20 * time.Second

const (
	memoryMiB = 64
	firstPage = 24 << 20 // of those that the guest reads
	pageCount = 8000
)

// reads is what the guest does with its memory after a restore: a number of each page.
func reads() tinyguest.Read {
	return tinyguest.Read{Flag: 20 << 20, From: firstPage, Count: pageCount, Step: 4096}
}

// machine is a VMM of a test, in a directory of its own.
type machine struct {
	*api.Client
	process *vmm.Process
	dir     string
}

// spawn starts one that has no guest yet.
func spawn(t testing.TB) machine {
	t.Helper()
	p := ring.Real(t)
	dir := t.TempDir()
	console, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	process, err := vmm.Start(vmm.Command{Path: p.Firecracker, Args: []string{"--api-sock", "api.sock", "--id", "test"}, Dir: dir, Stdout: console, Stderr: console, PIDNamespace: true})
	if err != nil {
		t.Fatal(err)
	}
	m := machine{api.NewUnix(filepath.Join(dir, "api.sock")), process, dir}
	t.Cleanup(func() {
		m.Client.Close()
		process.Kill()
		process.Wait(context.Background())
		process.Close()
	})
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		_, err := m.GetVersion(bounded(t))
		if err == nil {
			return m
		}
		if !errors.Is(err, api.ErrGone) || time.Since(begin) > patience {
			t.Fatal(err)
		}
	}
}

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, calls ...error) {
	t.Helper()
	if err := errors.Join(calls...); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t testing.TB, what string, so func() bool) {
	t.Helper()
	for begin := time.Now(); !so(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func (m machine) console() string {
	text, _ := os.ReadFile(filepath.Join(m.dir, "console"))
	return string(text)
}

// snapshot is one of a guest that waits to be told to read its memory.
type snapshot struct{ state, memory, sum string }

// takeSnapshot makes one, whose memory is random and which reads it as soon as it runs.
func takeSnapshot(t testing.TB) snapshot {
	t.Helper()
	m, ctx, read := spawn(t), bounded(t), reads()
	must(t, tinyguest.Write(filepath.Join(m.dir, "kernel"), tinyguest.Program{Text: "waits\n", Read: &read, After: tinyguest.Reset}),
		m.PutMachineConfig(ctx, api.MachineConfig{VCPUCount: 1, MemSizeMiB: memoryMiB}),
		m.PutBootSource(ctx, api.BootSource{KernelImagePath: "kernel"}),
		m.PutBalloon(ctx, api.Balloon{}),
		m.Action(ctx, api.InstanceStart))
	waitFor(t, "the guest", func() bool { return strings.Contains(m.console(), "waits\n") })
	must(t, m.PatchVM(ctx, api.VMPaused), m.CreateSnapshot(ctx, api.SnapshotCreate{SnapshotPath: "state", MemFilePath: "memory"}), m.process.Kill())
	s := snapshot{state: filepath.Join(m.dir, "state"), memory: filepath.Join(m.dir, "memory")}
	content := make([]byte, pageCount*4096)
	rand.NewChaCha8([32]byte{1}).Read(content)
	s.sum = read.Sum(content)
	f, err := os.OpenFile(s.memory, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(content, firstPage)
	_, err2 := f.WriteAt(binary.LittleEndian.AppendUint64(nil, 1), int64(read.Flag))
	must(t, err, err2, f.Close())
	return s
}

// load has a fresh VMM become the snapshot.
func (m machine) load(t testing.TB, s snapshot, kind, path string) error {
	t.Helper()
	return m.LoadSnapshot(bounded(t), api.SnapshotLoad{SnapshotPath: s.state, MemBackend: &api.MemBackend{BackendType: kind, BackendPath: path}, ResumeVM: true})
}

// finish waits for the guest's own end, and expects its sum.
func (m machine) finish(t testing.TB, s snapshot) {
	t.Helper()
	status, err := m.process.Wait(bounded(t))
	if err != nil || !status.Known || status.Signal != 0 || status.Code != 0 {
		t.Errorf("the VMM has ended with %+v, %v, and not by its guest", status, err)
	}
	if !strings.Contains(m.console(), s.sum+"\n") {
		t.Errorf("the guest says %q, want %s", m.console(), s.sum)
	}
}

// serves is a Config for a machine.
func (m machine) serves(t testing.TB, source Location) Config {
	t.Helper()
	return Config{Dir: t.TempDir(), VMM: m.process.Identity(), Root: m.dir, Socket: "pager", Source: source}
}

// helped has a helper serve it, which ends with the test.
func helped(t testing.TB, config Config) interface {
	Kill(context.Context) error
	Done() <-chan struct{}
} {
	t.Helper()
	h, err := Start(bounded(t), "", nil, config)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(config.Dir, "pager.log"))
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(h.Close(), Stop(ctx, config.Dir)); err != nil {
			t.Error(err)
		}
	})
	return h
}

func detail(t testing.TB, value any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(value)
	must(t, err)
	return text
}

func TestRealRestoreIsAsFromTheFile(t *testing.T) {
	s := takeSnapshot(t)
	byFile := spawn(t)
	must(t, byFile.load(t, s, "File", s.memory))
	byFile.finish(t, s)

	m := spawn(t)
	config := m.serves(t, Location{Path: s.memory})
	helped(t, config)
	must(t, m.load(t, s, "Uffd", "pager"))
	m.finish(t, s)
	waitFor(t, "the end", func() bool { stats, err := Look(bounded(t), config.Dir); return err == nil && stats.Phase == PhaseEnded })
	stats, err := Look(bounded(t), config.Dir)
	if err != nil || stats.Copied < pageCount || stats.Faults != stats.Copied+stats.Present || stats.Zeroed > 0 || stats.Pages != memoryMiB<<8 || stats.Latency.Count() != stats.Faults {
		t.Errorf("%+v, %v", stats, err)
	}
	if why, err := Reason(config.Dir, config.VMM); why != "" || err != nil {
		t.Errorf("a VM that has ended by itself was ended for a reason: %q, %v", why, err)
	}
	t.Logf("uffd_fault: p50 %s, p99 %s of %d", stats.Latency.Quantile(0.5), stats.Latency.Quantile(0.99), stats.Faults)
}
