//go:build linux

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/tree"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	maxCopies    = 64               // at a time
	lastPatience = 10 * time.Second // how long a host may take to hear how a copy has ended
)

// copying is a request for files, from the agent's answer on.
type copying struct {
	conn   net.Conn
	in     *bufio.Reader
	out    *wire.DataWriter
	cancel context.CancelFunc // ends the work; nil where others do
}

// Close ends the connection, and the work, which need not read or write there.
func (c *copying) Close() error {
	c.cancel()
	return c.conn.Close()
}

func (s *Server) readFiles(w http.ResponseWriter, r *http.Request) {
	var request wire.FilesRead
	if !decode(w, r, &request) {
		return
	}
	at, _, _, follow := tree.Source(request.Path)
	f, err := s.source(&request, at, follow)
	if err != nil {
		fail(w, err)
		return
	}
	if f != nil {
		defer f.Close()
	}
	s.stream(w, r, func(ctx context.Context, c *copying) (tree.Progress, error) {
		if f != nil {
			n, err := io.Copy(c.out, f)
			return tree.Progress{Bytes: n, File: at}, err
		}
		return s.pack(ctx, c.out, at, tree.PackOptions{
			Name: request.Name, Follow: follow, Devices: request.Devices, From: request.From, Have: request.Have, Heads: request.Heads,
		})
	})
}

// source looks a request's path up, so that what is not there is refused before anything is sent. It opens a file of which only the content is asked for.
func (s *Server) source(request *wire.FilesRead, at string, follow bool) (*os.File, error) {
	if err := checkPath(request.Path); err != nil {
		return nil, err
	}
	if request.Raw {
		return openRegular(request.Path, request.Offset)
	}
	if name := request.Name; name == "" || strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) || path.Clean(name) != name {
		return nil, refuse(wire.CodeInvalid, "name %q", name)
	}
	stat := os.Lstat
	if follow {
		stat = os.Stat
	}
	info, err := stat(at)
	if err == nil && follow && strings.HasSuffix(request.Path, "/") && !info.IsDir() {
		err = &fs.PathError{Op: "copy", Path: at, Err: syscall.ENOTDIR}
	}
	return nil, fileError(err)
}

// openRegular opens a regular file, at an offset, without waiting for anybody.
func openRegular(at string, offset int64) (*os.File, error) {
	if offset < 0 {
		return nil, refuse(wire.CodeInvalid, "offset %d", offset)
	}
	f, err := os.OpenFile(at, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileError(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = refuse(wire.CodeInvalid, "%q is no regular file", at)
	}
	if err == nil && offset > 0 {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Server) writeFiles(w http.ResponseWriter, r *http.Request) {
	request, ok := decodeWrite(w, r)
	if !ok {
		return
	}
	if request.ID != "" {
		s.goOn(w, r, request)
		return
	}
	s.stream(w, r, func(ctx context.Context, c *copying) (tree.Progress, error) {
		data := wire.NewDataReader(c.in, wire.DataEnd)
		put := s.put
		if request.Tar {
			put = s.unpack
		}
		progress, err := put(ctx, data, request.Path, putOptions(request))
		if err == nil {
			_, err = io.Copy(io.Discard, data) // what fills a tar's last record; a stream that was cut has no end
		}
		return progress, err
	})
}

// decodeWrite reads what is to be written, or answers why not.
func decodeWrite(w http.ResponseWriter, r *http.Request) (request *wire.FilesWrite, ok bool) {
	request = new(wire.FilesWrite)
	if !decode(w, r, request) {
		return nil, false
	}
	if err := checkPath(request.Path); err != nil {
		fail(w, err)
		return nil, false
	}
	return request, true
}

func putOptions(request *wire.FilesWrite) tree.PutOptions {
	return tree.PutOptions{
		Name: request.Name, Contents: request.Contents, Exact: request.Exact, Owners: request.Owners, Setuid: request.Setuid, Devices: request.Devices,
	}
}

// compareFiles says up to where what the host would send is there.
func (s *Server) compareFiles(w http.ResponseWriter, r *http.Request) {
	request, ok := decodeWrite(w, r)
	if !ok {
		return
	}
	s.serve(w, r, func(ctx context.Context, c *copying) {
		have, err := tree.Compare(ctx, wire.NewDataReader(c.in, wire.DataEnd), request.Path, putOptions(request))
		c.told(resultOf(tree.Progress{}, have, err))
	})
}

func (s *Server) statFile(w http.ResponseWriter, r *http.Request) {
	var request wire.FilesStat
	if !decode(w, r, &request) {
		return
	}
	if err := checkPath(request.Path); err != nil {
		fail(w, err)
		return
	}
	stat := os.Lstat
	if request.Follow {
		stat = os.Stat
	}
	info, err := stat(request.Path)
	if err != nil {
		fail(w, fileError(err))
		return
	}
	file := fileOf(info)
	if info.Mode()&fs.ModeSymlink != 0 {
		file.Link, _ = os.Readlink(request.Path)
	}
	answer(w, file)
}

// fileOf is what is told of a file.
func fileOf(info fs.FileInfo) wire.File {
	file := wire.File{Name: info.Name(), Size: info.Size(), Mode: uint32(info.Mode()), ModTime: info.ModTime().UnixNano()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		file.UID, file.GID = stat.Uid, stat.Gid
	}
	return file
}

// stream turns a request into frames, does the work, and says how it ended.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, work func(context.Context, *copying) (tree.Progress, error)) {
	s.serve(w, r, func(ctx context.Context, c *copying) {
		progress, err := work(ctx, c)
		c.told(resultOf(progress, "", err))
	})
}

// serve turns a request into frames.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, work func(context.Context, *copying)) {
	if r.Header.Get("Upgrade") != wire.Upgrade {
		fail(w, refuse(wire.CodeInvalid, "header Upgrade is not %s", wire.Upgrade))
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &copying{conn: conn, in: buffered.Reader, out: wire.NewDataWriter(conn), cancel: cancel}
	defer c.Close()
	if err := s.hold(c); err != nil {
		refuseHijacked(conn, err)
		return
	}
	defer s.let(c)
	conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(conn, switching); err != nil {
		return
	}
	work(ctx, c)
}

// switching is the answer to a request that becomes frames.
const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + wire.Upgrade + "\r\n\r\n"

// resultOf is how a copy ended, as the host is told.
func resultOf(progress tree.Progress, have wire.Name, err error) []byte {
	result := wire.CopiedResult{Files: progress.Files, Bytes: progress.Bytes, Have: have}
	if err != nil {
		err = fileError(err)
		result.File, result.Error = progress.File, &wire.Error{Code: codeOf(err), Message: err.Error()}
	}
	text, err := json.Marshal(result)
	if err != nil || len(text) > wire.MaxPayload {
		return []byte(`{"error": {"code": "internal", "error": "the result is too long"}}`)
	}
	return text
}

// told says how the work ended, and waits until the host has heard it: a connection that is closed while something comes loses what was said.
func (c *copying) told(result []byte) {
	c.conn.SetDeadline(time.Now().Add(lastPatience))
	if c.out.End(wire.Copied, result) == nil {
		io.Copy(io.Discard, c.in)
	}
}

// hold notes a copy, by what ends it, so that the server's end is also its own.
func (s *Server) hold(copy io.Closer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holdLocked(copy)
}

func (s *Server) holdLocked(copy io.Closer) error {
	switch {
	case s.closed:
		return refuse(wire.CodeBusy, "the agent ends")
	case len(s.copies) >= maxCopies:
		return refuse(wire.CodeBusy, "%d copies are made already", len(s.copies))
	}
	s.copies[copy] = true
	s.work.Add(1)
	return nil
}

func (s *Server) let(copy io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.copies, copy)
	s.work.Done()
}

// EndCopies ends all copies that are made, and waits a while until none has a file open: a file system with such a one can't be made read-only.
func (s *Server) EndCopies() {
	s.mu.Lock()
	s.closed = true
	for copy := range s.copies {
		copy.Close()
	}
	s.mu.Unlock()
	for begin := time.Now(); time.Since(begin) < termPatience; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		left := len(s.copies)
		s.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

// refuseHijacked is fail on a connection that HTTP has let go.
func refuseHijacked(conn net.Conn, err error) {
	text, _ := json.Marshal(wire.Error{Code: codeOf(err), Message: err.Error()})
	response := http.Response{StatusCode: statusOf[codeOf(err)], ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(text)), Body: io.NopCloser(strings.NewReader(string(text))), Close: true}
	response.Write(conn)
}

// checkPath refuses what is no path from the root on.
func checkPath(at string) error {
	if !path.IsAbs(at) || strings.ContainsRune(at, 0) || len(at) > wire.MaxPath {
		return refuse(wire.CodeInvalid, "path %.100q must be absolute, without NUL bytes, and of at most %d bytes", at, wire.MaxPath)
	}
	return nil
}

// codes says what an error of the file system is on the wire.
var codes = []struct {
	err  error
	code string
}{
	{syscall.ENOSPC, wire.CodeFull}, {syscall.EDQUOT, wire.CodeFull}, {fs.ErrNotExist, wire.CodeNotFound}, {fs.ErrPermission, wire.CodeDenied}, {syscall.EROFS, wire.CodeDenied},
	{tree.ErrUnsafe, wire.CodeInvalid}, {syscall.ENOTDIR, wire.CodeInvalid}, {syscall.EISDIR, wire.CodeInvalid}, {fs.ErrExist, wire.CodeInvalid},
	{syscall.ENAMETOOLONG, wire.CodeInvalid}, {syscall.ELOOP, wire.CodeInvalid}, {io.ErrUnexpectedEOF, wire.CodeInvalid},
}

// fileError gives an error of the file system its code.
func fileError(err error) error {
	if refused := (*requestError)(nil); err == nil || errors.As(err, &refused) {
		return err
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &requestError{c.code, err}
		}
	}
	return err
}
