package wire

import "time"

// Paths of the requests for files.
const (
	PathFilesRead  = "/v1/files/read"  // FilesRead, Upgrade. Answered by frames Data, then Copied.
	PathFilesWrite = "/v1/files/write" // FilesWrite, Upgrade. Then frames Data and DataEnd; the answer is Copied, which may come before the end.
	PathFilesStat  = "/v1/files/stat"  // FilesStat. The answer is a File.
	PathFilesList  = "/v1/files/list"  // FilesList. The answer is a FilesListed.
)

// FeatureCopy is the requests for files, the frames Data, DataEnd and Copied, and CodeFull.
const FeatureCopy = "copy"

// FeatureFS is POST PathFilesList and FilesRead.Offset.
const FeatureFS = "fs"

// MaxPath bounds a path, and a name in a tar, in bytes (PATH_MAX).
const MaxPath = 4096

// FilesRead is the body of POST PathFilesRead. What comes is a tar (PAX), whose names are Name for what is at the path, and Name/… for what is below it.
type FilesRead struct {
	Path    string `json:"path"` // Absolute. A symbolic link is itself, unless "/" or "/." follows.
	Name    string `json:"name,omitempty"`
	Devices bool   `json:"devices,omitempty"` // Take devices and named pipes too. Without it they are an error.
	// Raw asks for the content of a regular file instead, whatever size it claims to have.
	Raw bool `json:"raw,omitempty"`
	// Offset is where a raw content begins. Beyond the file's end there is nothing.
	Offset int64 `json:"offset,omitempty"`
}

// FilesWrite is the body of POST PathFilesWrite. What comes is a tar.
type FilesWrite struct {
	Path string `json:"path"` // Absolute.
	// Tar unpacks it into the directory Path, which must be there. Without it the tar is that of a FilesRead, and Path is taken as cp(1) does: an existing directory is where
	// the copy goes to, under Name; anything else is the copy's name.
	Tar      bool   `json:"tar,omitempty"`
	Name     string `json:"name,omitempty"`
	Contents bool   `json:"contents,omitempty"` // The content of a directory goes into Path, without Name.
	Exact    bool   `json:"exact,omitempty"`    // Path is the copy's name, whatever is there.
	Owners   bool   `json:"owners,omitempty"`   // Keep numeric owners. Without it all is the agent's.
	Setuid   bool   `json:"setuid,omitempty"`   // Keep set-user-ID and set-group-ID bits and capabilities.
	Devices  bool   `json:"devices,omitempty"`  // Make devices and named pipes. Without it they are an error.
}

// FilesStat is the body of POST PathFilesStat.
type FilesStat struct {
	Path   string `json:"path"`
	Follow bool   `json:"follow,omitempty"` // Of a symbolic link, what it leads to.
}

// FilesList is the body of POST PathFilesList: what is in a directory, page by page.
type FilesList struct {
	Path  string `json:"path"`            // Absolute. Symbolic links are followed.
	After string `json:"after,omitempty"` // FilesListed.Next of the page before.
}

// FilesListed is one page, in the order of names' bytes. Names that are not UTF-8 are left out.
type FilesListed struct {
	Files []File `json:"files"`          // Symbolic links are themselves, without Link.
	Next  string `json:"next,omitempty"` // There may be more after it: ask with it as After.
}

// File is what a guest says of a file.
type File struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Mode    uint32 `json:"mode"`     // As Go's fs.FileMode has it.
	ModTime int64  `json:"mtime_ns"` // Since 1970.
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	Link    string `json:"link,omitempty"` // Where a symbolic link leads to.
}

// Time returns the time of the last change.
func (f File) Time() time.Time { return time.Unix(0, f.ModTime) }

// CopiedResult is the payload of a frame Copied: how far the agent came.
type CopiedResult struct {
	Files int64  `json:"files"` // That are complete.
	Bytes int64  `json:"bytes"` // Of their content.
	File  string `json:"file,omitempty"`
	Error *Error `json:"error,omitempty"` // Why it went no further.
}
