//go:build linux

package fakevmm

import (
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// serve serves the API until the process ends.
func (p *program) serve() error {
	listener, err := net.Listen("unix", p.socket)
	if err != nil {
		return err
	}
	p.say("Listening on API socket.")
	go http.Serve(listener, http.HandlerFunc(p.answer))
	return nil
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
