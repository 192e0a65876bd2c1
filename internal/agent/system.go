//go:build linux

package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// system is what changes the whole system: the first process alone does it.
type system struct {
	setClock    func(time.Time) error
	addEntropy  func([]byte) error
	setHostname func(string) error
	root        string // what paths are below; empty for the system's own
}

// change decodes a request that changes the system, and answers with what change returns.
func change[T any](s *Server, w http.ResponseWriter, r *http.Request, change func(*T) (any, error)) {
	var request T
	if !decode(w, r, &request) {
		return
	}
	if !s.mayChange() {
		fail(w, refuse(wire.CodeDenied, "this agent is not the first process of its system"))
		return
	}
	result, err := change(&request)
	if errors.Is(err, os.ErrPermission) {
		err = refuse(wire.CodeDenied, "%w", err)
	}
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, result)
}

func (s *Server) mayChange() bool {
	if s.options.System != nil {
		return s.options.System.May()
	}
	return s.options.First
}

func (s *Server) clock(w http.ResponseWriter, r *http.Request) {
	change(s, w, r, func(request *wire.Clock) (any, error) {
		if request.Unix < 0 {
			return nil, refuse(wire.CodeInvalid, "a time before 1970")
		}
		to := time.Unix(0, int64(request.Unix))
		skew := time.Now().Round(0).Sub(to) // by the clock that is set, and not the monotonic one
		if err := s.system.setClock(to); err != nil {
			return nil, fmt.Errorf("set the clock: %w", err)
		}
		return wire.Skew{Skew: skew}, nil
	})
}

func (s *Server) entropy(w http.ResponseWriter, r *http.Request) {
	change(s, w, r, func(request *wire.Entropy) (any, error) {
		defer clear(request.Data)
		if len(request.Data) < 1 || len(request.Data) > wire.MaxEntropy {
			return nil, refuse(wire.CodeInvalid, "%d bytes of entropy (it must be 1 to %d)", len(request.Data), wire.MaxEntropy)
		}
		if err := s.system.addEntropy(request.Data); err != nil {
			return nil, fmt.Errorf("add entropy: %w", err)
		}
		return struct{}{}, nil
	})
}

func (s *Server) hostname(w http.ResponseWriter, r *http.Request) {
	change(s, w, r, func(request *wire.Hostname) (any, error) {
		if !wire.ValidHostname(request.Name) {
			return nil, refuse(wire.CodeInvalid, "host name %.80q (it must be 1 to 64 of a-z, A-Z, 0-9, - and ., and begin and end with a letter or digit)", request.Name)
		}
		if err := s.system.setHostname(request.Name); err != nil {
			return nil, fmt.Errorf("set the host name: %w", err)
		}
		return struct{}{}, nil
	})
}

// setClock sets CLOCK_REALTIME.
func setClock(to time.Time) error {
	t := unix.NsecToTimespec(to.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &t)
}

func nameHost(name string) error { return unix.Sethostname([]byte(name)) }

// addEntropy credits the kernel's generator with all of data's bits, and makes it take them up at once: what is read from then on differs (random(4)). It keeps no copy.
func addEntropy(data []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info := make([]byte, 0, 8+len(data)) // struct rand_pool_info: bits, bytes, data
	info = binary.NativeEndian.AppendUint32(info, uint32(8*len(data)))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(data)))
	info = append(info, data...)
	defer clear(info)
	return control(f, func(fd int) error {
		_, _, failed := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0])))
		runtime.KeepAlive(info)
		if failed != 0 {
			return fmt.Errorf("RNDADDENTROPY: %w", failed)
		}
		if _, _, failed := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDRESEEDCRNG, 0); failed != 0 {
			return fmt.Errorf("RNDRESEEDCRNG: %w", failed)
		}
		return nil
	})
}
