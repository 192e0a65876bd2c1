//go:build linux

package fakevmm

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// bind makes the API's socket.
func (p *program) bind(path string) (net.Listener, error) {
	if len(path) > socketPathLimit {
		return nil, variant{"FailedToBindAndRunHttpServer", variant{"IOError", errSocketPath}}
	}
	listener, err := net.Listen("unix", path)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, variant{"FailedToBindSocket", errors.New(path)}
	case err != nil:
		return nil, variant{"FailedToBindAndRunHttpServer", variant{"IOError", osError(err)}}
	}
	p.say("Listening on API socket (" + quote(path) + ").")
	return listener, nil
}

func (p *program) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	key, _, _ := p.vmm.Release.find(r.Method, r.URL.EscapedPath())
	if faults, err := readFaults(p.binary); err == nil {
		if fault, ok := faults.Requests[key]; ok && fault.strike(w, r) {
			return
		}
	}
	status, text := p.vmm.Do(r.Method, r.URL.EscapedPath(), body)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(text)
	if p.vmm.Dead() {
		p.once.Do(func() { close(p.reset) })
	}
}

// strike lets a fault happen, and says whether it was the whole answer.
func (f Fault) strike(w http.ResponseWriter, r *http.Request) bool {
	time.Sleep(f.Delay)
	switch {
	case f.Die:
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case f.Hang:
		<-r.Context().Done() // the caller has gone
		return true
	case f.Garbage != "":
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			io.WriteString(conn, f.Garbage)
			conn.Close()
		}
		return true
	case f.Status != 0:
		w.WriteHeader(f.Status)
		io.WriteString(w, `{"fault_message":"as told"}`)
		return true
	}
	return false
}
