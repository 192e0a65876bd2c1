//go:build linux

package agent

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/tree"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	uploadLease = time.Minute // how long a copy to the guest waits for a host that was cut off
	maxResults  = 64          // of copies that have ended, for hosts that have not heard it
)

// upload is a copy to the guest that outlives its connection. A newer connection ends an older one.
type upload struct {
	ctx    context.Context
	cancel context.CancelFunc
	lease  time.Duration
	next   chan *copying // the connection that is to be gone on with; at most one

	mu      sync.Mutex
	current *copying
	attempt uint64 // of the newest connection
	result  []byte // when it has ended
}

// uploadResult is how an upload ended.
type uploadResult struct {
	id     string
	result []byte
}

// goOn takes what the host sends of a copy, on its first connection or a later one.
func (s *Server) goOn(w http.ResponseWriter, r *http.Request, request *wire.FilesWrite) {
	if !wire.ValidID(request.ID) {
		fail(w, refuse(wire.CodeInvalid, "id %.80q (it must be 1 to 64 of a-z, A-Z, 0-9)", request.ID))
		return
	}
	if !upgrades(w, r) {
		return
	}
	u, isNew, result, err := s.findUpload(request)
	if err != nil {
		fail(w, err)
		return
	}
	if isNew {
		defer s.letUpload(request.ID, u)
	}
	conn, in, err := switchOver(w)
	if err != nil {
		return
	}
	c := &copying{conn: conn, in: in, out: wire.NewDataWriter(conn)}
	if u != nil {
		result = u.offer(c, request.Attempt)
	}
	switch {
	case result != nil:
		s.tellResult(c, result)
	case isNew:
		s.receive(u, request)
	}
}

// letUpload forgets an upload whose first request is over.
func (s *Server) letUpload(id string, u *upload) {
	u.Close()
	s.mu.Lock()
	delete(s.uploads, id)
	s.mu.Unlock()
	s.let(u)
}

// tellResult tells how a copy ended that has ended.
func (s *Server) tellResult(c *copying, result []byte) {
	defer c.conn.Close()
	if s.hold(c.conn) == nil {
		defer s.let(c.conn)
		c.told(result)
	}
}

// findUpload returns the upload of the request's id, which is new or not, or how it ended. One that is new is to be let.
func (s *Server) findUpload(request *wire.FilesWrite) (u *upload, isNew bool, result []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.uploads[request.ID]; u != nil {
		return u, false, nil, nil
	}
	for _, ended := range s.results {
		if ended.id == request.ID {
			return nil, false, ended.result, nil
		}
	}
	if request.Attach {
		return nil, false, nil, refuse(wire.CodeNotFound, "copy %s is not known", request.ID)
	}
	u = &upload{lease: s.lease, next: make(chan *copying, 1)}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	if err := s.holdLocked(u); err != nil {
		u.cancel()
		return nil, false, nil, err
	}
	s.uploads[request.ID] = u
	return u, true, nil, nil
}

// receive unpacks what comes on any number of connections, and says how it ended.
func (s *Server) receive(u *upload, request *wire.FilesWrite) {
	o := putOptions(request)
	o.Again = u.again
	var progress tree.Progress
	data, err := u.again(tree.Position{}, io.ErrUnexpectedEOF)
	if err == nil {
		put := s.put
		if request.Tar {
			put = s.unpack
		}
		progress, err = put(u.ctx, data, request.Path, o)
	}
	result := resultOf(progress, "", err)
	s.mu.Lock()
	delete(s.uploads, request.ID)
	if len(s.results) == maxResults {
		s.results = append(s.results[:0:0], s.results[1:]...)
	}
	s.results = append(s.results, uploadResult{request.ID, result})
	s.mu.Unlock()
	u.end(result)
}

// again returns what comes on the next connection, after the one before has failed. It tells the host where it is to go on.
func (u *upload) again(at tree.Position, failed error) (io.Reader, error) {
	text, err := json.Marshal(at)
	if err != nil {
		return nil, err
	}
	patience := time.NewTimer(u.lease)
	defer patience.Stop()
	for {
		select {
		case c := <-u.next:
			if c.out.End(wire.At, text) == nil {
				return wire.NewDataReader(c.in, wire.DataEnd), nil
			}
		case <-patience.C:
			return nil, failed
		case <-u.ctx.Done():
			return nil, failed
		}
	}
}

// offer gives the upload a connection, which is its own from then on; when it has ended it returns how, and the connection stays the caller's.
func (u *upload) offer(c *copying, attempt uint64) (result []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.result != nil {
		return u.result
	}
	if attempt < u.attempt || u.ctx.Err() != nil {
		c.conn.Close()
		return nil
	}
	u.attempt = attempt
	if u.current != nil {
		u.current.conn.Close() // also one that was not taken up
	}
	u.current = c
	select {
	case <-u.next:
	default:
	}
	u.next <- c
	return nil
}

// end tells the result on the present connection, and on those that come yet.
func (u *upload) end(result []byte) {
	u.mu.Lock()
	u.result = result
	c := u.current
	u.mu.Unlock()
	if c != nil {
		c.told(result)
	}
}

// Close ends the upload, and its connection.
func (u *upload) Close() error {
	u.cancel()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.current != nil {
		return u.current.conn.Close()
	}
	return nil
}

// endUpload ends a copy that nobody goes on with.
func (s *Server) endUpload(w http.ResponseWriter, r *http.Request) {
	var request wire.FilesEnd
	if !decode(w, r, &request) {
		return
	}
	s.mu.Lock()
	u := s.uploads[request.ID]
	s.mu.Unlock()
	if u == nil {
		fail(w, refuse(wire.CodeNotFound, "copy %.80q is not known", request.ID))
		return
	}
	u.Close()
	answer(w, struct{}{})
}
