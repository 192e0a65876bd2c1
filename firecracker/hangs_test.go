//go:build linux

package firecracker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// TestRealVMMHangsOverItsGuestsEnd: a VMM that does not answer because it stops, and never ends, is ended, and the machine has run.
func TestRealVMMHangsOverItsGuestsEnd(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		defer r.destroy(vm)
		r.setHook(func(point string) error { // what the real one does seldom is done for it: it is held, and its log says that it stops
			if point != "start/vmm:before" {
				return nil
			}
			pids := r.pids(vm.UID())
			awaitLog(t, r, vm, booted)
			for _, pid := range pids {
				fd, err := unix.PidfdOpen(pid)
				if err != nil {
					return err
				}
				defer syscall.Close(fd)
				if err := unix.PidfdSendSignal(fd, syscall.SIGSTOP); err != nil {
					return err
				}
			}
			return appendLog(r, vm, stopping)
		})
		if err := vm.Start(within(t), nil); err != nil {
			t.Fatal(err)
		}
		r.setHook(nil)
		exit, err := vm.Wait(within(t))
		if err != nil || exit.Reason != microvm.ReasonGuest || !strings.Contains(strings.Join(exit.Evidence, ";"), "stopping") {
			t.Errorf("exit %+v, %v", exit, err)
		}
		r.start(vm)
		if info := r.info(vm); info.State != microvm.StateRunning {
			t.Errorf("the next start: %+v", info)
		}
	})
}

// patienceOfLog is how long a VMM may take to boot a few instructions.
const patienceOfLog = 10 * time.Second

func awaitLog(t *testing.T, r *rig, vm *microvm.VM, words string) {
	t.Helper()
	record := must(r.driver.state.ReadRecord(vm.UID()))
	ctx, cancel := context.WithTimeout(t.Context(), patienceOfLog)
	defer cancel()
	for !strings.Contains(r.driver.vmmLog(record), words) {
		if ctx.Err() != nil {
			t.Fatalf("the log does not say %q", words)
		}
	}
}

func appendLog(r *rig, vm *microvm.VM, words string) error {
	path := filepath.Join(r.options.SocketDir, vm.UID(), logPath)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(words + "\n")
	return err
}
