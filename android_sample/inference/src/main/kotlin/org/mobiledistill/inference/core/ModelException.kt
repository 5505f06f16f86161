package org.mobiledistill.inference.core

/** Why a model cannot be used; the message says which file, what was found and what would be right. */
sealed class ModelException(message: String, cause: Throwable? = null) : RuntimeException(message, cause)

/** A file of the export is not where it should be. */
class ModelMissingException(message: String, cause: Throwable? = null) : ModelException(message, cause)

/** `model.json` or `golden.json` is damaged, or asks for something that this library does not do. */
class ManifestException(message: String, cause: Throwable? = null) : ModelException(message, cause)

/** `model.json` was written for another version of this library. */
class ManifestVersionException(message: String) : ModelException(message)

/** The model is not the file that `model.json` was written for. */
class ModelChangedException(message: String) : ModelException(message)

/** A classifier was asked for where the model is a segmenter, or the other way round. */
class WrongTaskException(message: String) : ModelException(message)

/** The runtime does not take the file, or takes and gives something else than `model.json` says. */
class ModelRefusedException(message: String, cause: Throwable? = null) : ModelException(message, cause)

/** It was used after `close()`. */
class ModelClosedException : ModelException("the model was closed; make a new object to use it again")
